"""Sending the answer to a call: whole, or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from starlette.types import Receive, Send

from festina.errors import FestinaError
from festina.gateway.choices import Choices
from festina.gateway.errors import problem
from festina.gateway.logprobs import tellers
from festina.gateway.parameters import Call
from festina.gateway.patience import Patience
from festina.gateway.shapes import DONE, Chunks, event, tokens_of, usage_of, whole
from festina.messages import Accepted, TokenLogprobs, Tokens
from festina.runtime.protocol.request import Ended, Event

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"


@asynccontextmanager
async def hang_up(receive: Receive, cancel: Callable[[], None]) -> AsyncIterator[None]:
    """Inside, `cancel` is called when the client goes away."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        cancel()

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def send_whole(call: Call, choices: Choices, send: Send) -> None:
    """Answer when all choices have ended.

    Raises:
        FestinaError: One ended badly; nothing was sent.
    """
    texts: list[list[str]] = [[] for _ in call.jobs]
    logprobs: list[list[TokenLogprobs]] = [[] for _ in call.jobs]
    ends: dict[int, Ended] = {}
    while len(ends) < len(call.jobs):
        for index, news in await choices.news():
            if isinstance(news, FestinaError):
                raise news
            if isinstance(news, Tokens | Ended):
                texts[index].append(news.text)
            if isinstance(news, Tokens):
                logprobs[index] += news.logprobs
            if isinstance(news, Ended):
                ends[index] = news
    ordered = [ends[index] for index in range(len(call.jobs))]
    usage = usage_of([end.usage for end in ordered], call.choices_per_prompt)
    joined = ["".join(parts) for parts in texts]
    told = [teller.tell(one) for teller, one in zip(tellers(call), logprobs, strict=True)]
    body = whole(call, joined, [end.reason for end in ordered], usage, told)
    await send_body(send, 200, body, {"x-request-id": call.id})


async def send_stream(call: Call, choices: Choices, send: Send, stall_s: float) -> None:
    """Answer as tokens come. The status waits for the first, so that refusals have their own.

    Raises:
        FestinaError: A choice ended badly before anything was sent; later, the stream tells it.
        TimeoutError: The client does not read.
    """
    async with Patience(send, stall_s) as patience:
        await _send_chunks(call, choices, patience.send)


async def _send_chunks(call: Call, choices: Choices, send: Send) -> None:
    stream = _Stream(call)
    started = False
    while not stream.ended:
        data = b"".join([stream.take(index, news) for index, news in await choices.news()])
        if stream.error is not None and not started:
            raise stream.error
        if stream.error is not None:
            data += event(problem(stream.error).body)
        if stream.ended:
            data += stream.last() + DONE
        if not data:
            continue
        if not started:
            started = True
            headers = {"x-request-id": call.id, "cache-control": "no-cache"}
            await send(_start(200, EVENTS, headers))
        await send({"type": "http.response.body", "body": data, "more_body": not stream.ended})


async def send_body(
    send: Send,
    status: int,
    body: bytes,
    headers: Mapping[str, str] = {},
    media_type: str = JSON,
) -> None:
    """A whole answer."""
    length = {"content-length": str(len(body))}
    await send(_start(status, media_type, length | dict(headers)))
    await send({"type": "http.response.body", "body": body})


def _start(status: int, media_type: str, headers: Mapping[str, str]) -> dict[str, object]:
    fields = {"content-type": media_type} | dict(headers)
    raw = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
    return {"type": "http.response.start", "status": status, "headers": raw}


class _Stream:
    """What has come of each choice."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._chunks = Chunks(call)
        self._tellers = tellers(call)
        self._inputs = [0] * len(call.jobs)
        self._outputs = [0] * len(call.jobs)
        self._opened = [False] * len(call.jobs)
        self._ends: dict[int, Ended] = {}
        self.error: FestinaError | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.error is not None or len(self._ends) == len(self._call.jobs)

    def take(self, index: int, news: Event) -> bytes:
        """The chunks for one event."""
        if self.error is not None:
            return b""
        match news:
            case Accepted(_, input_tokens):
                self._inputs[index] = input_tokens
                return b""
            case Tokens(_, _, token_ids, text, logprobs):
                self._outputs[index] += len(token_ids)
                told = self._tellers[index].tell(logprobs)
                opened = self._open(index)
                return opened + self._chunks.text(index, text, None, self._so_far(), told)
            case Ended(reason=reason, text=text):
                self._ends[index] = news
                opened = self._open(index)
                return opened + self._chunks.text(index, text, reason, self._so_far())
            case FestinaError():
                self.error = news
        return b""

    def last(self) -> bytes:
        """The chunk with the usage, if it is wanted and known."""
        if self.error is not None or not self._call.include_usage:
            return b""
        usages = [self._ends[index].usage for index in range(len(self._ends))]
        return self._chunks.usage(usage_of(usages, self._call.choices_per_prompt))

    def _open(self, index: int) -> bytes:
        if self._opened[index]:
            return b""
        self._opened[index] = True
        return self._chunks.role(index)

    def _so_far(self) -> dict[str, object] | None:
        if not self._call.running_usage:
            return None
        inputs = sum(self._inputs[:: self._call.choices_per_prompt])
        return tokens_of(inputs, sum(self._outputs))
