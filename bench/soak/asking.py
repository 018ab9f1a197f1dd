"""HTTP requests as programs send them, some of them badly behaved, and what became of each."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

ANSWER_S = 60.0
"""An answer that has not ended by then is a timeout."""
KINDS = ("stream", "whole", "leaves", "wrong")
WEIGHTS = (70, 20, 5, 5)


@dataclass(slots=True)
class Ends:
    """How requests ended.

    Attributes:
        counts: "complete", "left" (hung up on purpose), "refused" (429 that says when to come
            again), "rejected" (400 to a wrong body), "timeout", or what should not be.
        tokens: Tokens of complete answers.
        slowest_s: Longest time to a complete answer or a refusal.
    """

    counts: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    slowest_s: float = 0.0

    @property
    def wrong(self) -> dict[str, int]:
        """What should not have happened."""
        good = {"complete", "left", "refused", "rejected"}
        return {end: count for end, count in self.counts.items() if count and end not in good}


class Asker:
    """Sends requests of all kinds to one gateway.

    Args:
        url: Of the gateway.
        models: Deployments to ask.
        rng: Draws kinds, lengths and prompts.
    """

    def __init__(self, url: str, models: tuple[str, ...], rng: random.Random) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "", place.port or 0
        self._models = models
        self._rng = rng

    async def ask(self, ends: Ends) -> str:
        """One request; how it ended."""
        kind = self._rng.choices(KINDS, WEIGHTS)[0]
        body = self._body(kind)
        start = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_S):
                end, tokens = await self._exchange(kind, body)
        except TimeoutError:
            end, tokens = "timeout", 0
        except OSError as error:
            end, tokens = type(error).__name__, 0
        ends.counts[end] += 1
        ends.tokens += tokens
        ends.slowest_s = max(ends.slowest_s, time.monotonic() - start)
        return end

    def _body(self, kind: str) -> bytes:
        words = self._rng.randint(4, 60)
        body: dict[str, object] = {
            "model": self._rng.choice(self._models),
            "messages": [{"role": "user", "content": "word " * words}],
            "max_tokens": self._rng.randint(24, 72),
            "stream": kind in ("stream", "leaves"),
            "ignore_eos": True,
        }
        if kind == "wrong":
            body["messages"] = self._rng.choice([[], "text", [{"role": 1}], None])
        return json.dumps(body).encode()

    async def _exchange(self, kind: str, body: bytes) -> tuple[str, int]:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self._host}\r\n"
                f"Connection: close\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            if kind == "leaves":
                data = await reader.readline()
                if b" 200 " in data:
                    await reader.read(400)
                    return "left", 0
                data += await reader.read(-1)
            else:
                data = await reader.read(-1)
        finally:
            writer.close()
        return judge(kind, data)


def judge(kind: str, data: bytes) -> tuple[str, int]:
    """How an answer counts, and its tokens."""
    head, _, body = data.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0
    if status == 429:
        return ("refused" if b"\nretry-after:" in head.lower() else "429 without a time"), 0
    if status == 400 and kind == "wrong":
        return "rejected", 0
    if status != 200:
        return f"status {status}", 0
    if kind == "stream":
        tokens = body.count(b'"finish_reason":null')
        return ("complete" if b"data: [DONE]" in body else "cut off"), tokens
    return ("complete" if b'"usage"' in body else "cut off"), 0
