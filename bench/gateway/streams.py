"""Streams held open over HTTP by a process that does as little as it can.

Raw sockets and epoll; it counts and reads no JSON. A stream that ends is followed by another one at
once, so that so many are always there. What an answer holds is checked all the same: each must have
as many tokens as were asked for, and a proper end.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from urllib.parse import urlsplit

TOKEN = b'"finish_reason":null'
"""Each token's event has it once; the one that ends a stream has a reason instead."""
DONE = b"data: [DONE]\n\n"
PROMPT = "x" * 64
TAIL_BYTES = 64
"""More than a mark, and than `DONE` and the end of its HTTP chunk."""
APART_S = 0.01
READ_BYTES = 1 << 13
STOP_S = 10.0


def request(url: str, tokens: int) -> bytes:
    """A whole HTTP request for a stream of so many tokens."""
    body = json.dumps(
        {"model": "chat", "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "stream": True}
    )
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


@dataclass(slots=True)
class Answer:
    """What has come of one stream.

    Attributes:
        wanted: Tokens that were asked for.
        tokens: Tokens so far.
        tail: The last bytes: an event may come in two pieces.
    """

    wanted: int
    tokens: int = 0
    tail: bytes = b""

    def take(self, data: bytes) -> int:
        """Count the tokens that these bytes complete."""
        text = self.tail + data
        fresh = text.count(TOKEN)
        self.tokens += fresh
        # What follows the last whole mark: it may hold the beginning of the next one, or the end.
        self.tail = text[text.rfind(TOKEN) + 1 :][-TAIL_BYTES:]
        return fresh

    @property
    def whole(self) -> bool:
        """Whether it ended as it should."""
        return self.tokens == self.wanted and DONE in self.tail


@dataclass(slots=True)
class Count:
    """What a process of streams tells while it runs.

    Attributes:
        tokens: Streamed so far.
        open: Streams that have begun.
        ended: Streams that ended as they should.
        broken: Streams that did not.
    """

    tokens: Synchronized[int]
    open: Synchronized[int]
    ended: Synchronized[int]
    broken: Synchronized[int]


@contextmanager
def held(url: str, streams: int, lengths: tuple[int, int]) -> Iterator[Count]:
    """So many streams through the gateway at `url` until the end; a length is drawn for each."""
    spawn = multiprocessing.get_context("spawn")
    count = Count(*(spawn.Value("q", 0) for _ in range(4)))
    stop = spawn.Event()
    process = spawn.Process(target=hold, args=(url, streams, lengths, count, stop), daemon=True)
    process.start()
    try:
        yield count
    finally:
        stop.set()
        process.join(STOP_S)
        process.kill()


class Holder:
    """The streams of this process.

    Args:
        url: Of the gateway.
        lengths: Shortest and longest output.
        count: Where to tell.
        rng: Draws lengths.
    """

    def __init__(
        self, url: str, lengths: tuple[int, int], count: Count, rng: random.Random
    ) -> None:
        self._url = url
        self._lengths = lengths
        self._count = count
        self._rng = rng
        self._poll = select.epoll()
        self._links: dict[int, tuple[socket.socket, Answer]] = {}

    def open(self) -> None:
        """Another stream."""
        place = urlsplit(self._url)
        tokens = self._rng.randint(*self._lengths)
        link = socket.create_connection((place.hostname or "", place.port or 0))
        link.sendall(request(self._url, tokens))
        link.setblocking(False)
        self._links[link.fileno()] = link, Answer(tokens)
        self._poll.register(link, select.EPOLLIN)
        self._count.open.value += 1

    def read(self, timeout_s: float) -> None:
        """What has come on any stream."""
        tokens = 0
        for number, _ in self._poll.poll(timeout_s):
            data = os.read(number, READ_BYTES)
            if data:
                tokens += self._links[number][1].take(data)
            else:
                self._end(number)
        self._count.tokens.value += tokens

    def close(self) -> None:
        """Hang up on all."""
        for link, _ in self._links.values():
            link.close()
        self._poll.close()

    def _end(self, number: int) -> None:
        link, answer = self._links.pop(number)
        self._poll.unregister(link)
        link.close()
        (self._count.ended if answer.whole else self._count.broken).value += 1
        self.open()


def hold(url: str, streams: int, lengths: tuple[int, int], count: Count, stop: Event) -> None:
    """The process: open them one after the other, then keep their number."""
    holder = Holder(url, lengths, count, random.Random(1))
    for _ in range(streams):
        holder.open()
        due = time.monotonic() + APART_S
        while (left_s := due - time.monotonic()) > 0:
            holder.read(left_s)
    while not stop.is_set():
        holder.read(0.1)
    holder.close()
