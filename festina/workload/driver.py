"""Sends requests when they are due, whatever became of earlier ones (open loop), and keeps count.

The driver trusts nobody: it checks itself that every request ends exactly once and that its tokens
arrive once each and in order. Latencies count from the due time, so a slow sender cannot flatter
the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from festina.errors import FestinaError, ProtocolError
from festina.messages import ChatTurn
from festina.report.stats import Outcome
from festina.runtime.client import AsyncClient
from festina.runtime.generation import Completion, TokenEvent
from festina.types import Sampling, Slo, Usage


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """A request and when to send it.

    Exactly one of `text`, `turns` and `token_ids` is not empty.

    Attributes:
        due_s: Time from the start of the run.
        model: Deployment name.
        slo: Its objectives.
        max_tokens: Upper bound of the output.
        sampling: How tokens are chosen.
        text: Raw prompt.
        turns: Chat prompt.
        token_ids: Prompt as token ids.
    """

    due_s: float
    model: str
    slo: Slo
    max_tokens: int
    sampling: Sampling
    text: str = ""
    turns: tuple[ChatTurn, ...] = ()
    token_ids: tuple[int, ...] = ()


class Integrity(msgspec.Struct, frozen=True):
    """How well promise 1 of the design held: ended exactly once, tokens once each and in order.

    Attributes:
        unended: Requests whose stream stopped without an end.
        ended_twice: Requests that went on after their end.
        lost: Tokens that were generated but never arrived, on completed requests.
        duplicated: Tokens that arrived again.
        reordered: Tokens that arrived after a later one.
        protocol_errors: Requests that the client gave up because the agent broke the protocol.
    """

    unended: int = 0
    ended_twice: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    protocol_errors: int = 0

    @property
    def holds(self) -> bool:
        """Whether nothing went wrong."""
        return not any(msgspec.structs.astuple(self))

    def __add__(self, other: Integrity) -> Integrity:
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return Integrity(*(a + b for a, b in zip(mine, theirs, strict=True)))


@dataclass(slots=True)
class Transcript:
    """What arrived for one request.

    Attributes:
        request: What was asked.
        indices: Index of each token, in order of arrival.
        token_s: Arrival of each token, on the run's clock.
        text: Output so far.
        usages: One per end.
        error: The error that ended it, if one did.
        ended_s: When it ended, on the run's clock.
        after_end: Whether something arrived after the end.
    """

    request: PlannedRequest
    indices: list[int] = field(default_factory=list)
    token_s: list[float] = field(default_factory=list)
    text: str = ""
    usages: list[Usage] = field(default_factory=list)
    error: FestinaError | None = None
    ended_s: float | None = None
    after_end: bool = False

    def add(self, event: TokenEvent | Completion, now_s: float) -> None:
        """Take note of an event."""
        self.after_end |= bool(self.usages)
        if isinstance(event, Completion):
            self.usages.append(event.usage)
            return
        self.indices.extend(range(event.index, event.index + len(event.token_ids)))
        self.token_s.extend([now_s] * len(event.token_ids))
        self.text += event.text

    def integrity(self) -> Integrity:
        """What went wrong with this request."""
        distinct = set(self.indices)
        late, highest, seen = 0, -1, set[int]()
        for index in self.indices:
            late += index < highest and index not in seen
            highest = max(highest, index)
            seen.add(index)
        generated = self.usages[0].output_tokens if self.usages else highest + 1
        return Integrity(
            unended=int(not self.usages and self.error is None),
            ended_twice=int(self.after_end or bool(self.usages and self.error)),
            lost=max(generated - len(distinct), 0),
            duplicated=len(self.indices) - len(distinct),
            reordered=late,
            protocol_errors=int(isinstance(self.error, ProtocolError)),
        )

    def outcome(self) -> Outcome:
        """This request for the statistics."""
        return Outcome(
            model=self.request.model,
            slo=self.request.slo,
            due_s=self.request.due_s,
            token_s=tuple(self.token_s),
            usage=self.usages[0] if self.usages and self.error is None else None,
            error=self.error.code if self.error else "",
        )


@dataclass(frozen=True, slots=True)
class Run:
    """All that happened.

    Attributes:
        transcripts: One per request, in the order given.
        duration_s: From the first due time to the last end, > 0.
    """

    transcripts: Sequence[Transcript]
    duration_s: float

    def integrity(self) -> Integrity:
        """What went wrong, over all requests."""
        return sum((transcript.integrity() for transcript in self.transcripts), Integrity())

    def outcomes(self) -> list[Outcome]:
        """All requests for the statistics."""
        return [transcript.outcome() for transcript in self.transcripts]


OpenStream = Callable[[PlannedRequest], AsyncIterator[TokenEvent | Completion]]
"""Starts a request; the iterator ends after `Completion`, or raises a `FestinaError`."""

Observer = Callable[[Transcript], None]
"""Told after each event of a request, and when it has ended (`ended_s` is set)."""


def streams_of(client: AsyncClient, retries: int) -> OpenStream:
    """Streams from a cluster; a request that is abandoned early is cancelled.

    Args:
        client: Connected.
        retries: How often a request that is refused for now tries again, with growing pauses; its
            TTFT goes on counting.
    """

    async def stream(request: PlannedRequest) -> AsyncIterator[TokenEvent | Completion]:
        async with client.generate(
            request.model,
            prompt=request.text,
            turns=request.turns,
            token_ids=request.token_ids,
            max_tokens=request.max_tokens,
            slo=request.slo,
            sampling=request.sampling,
            retries=retries,
        ) as pieces:
            async for piece in pieces:
                yield piece
            yield await pieces.completion()

    return stream


async def drive(
    requests: Sequence[PlannedRequest],
    open_stream: OpenStream,
    clock: Callable[[], float],
    observe: Observer,
) -> Run:
    """Send `requests` open loop and wait until all have ended.

    Args:
        requests: At least one, ascending by `due_s`.
        open_stream: How to start one.
        clock: Seconds, monotonic.
        observe: Called in the event loop; must not block.
    """
    start_s = clock()
    transcripts = [Transcript(request) for request in requests]

    async def follow(transcript: Transcript) -> None:
        try:
            async for event in open_stream(transcript.request):
                transcript.add(event, clock() - start_s)
                observe(transcript)
        except FestinaError as error:
            transcript.error = error
        transcript.ended_s = clock() - start_s
        observe(transcript)

    async with asyncio.TaskGroup() as group:
        for transcript in transcripts:
            await asyncio.sleep(max(0.0, start_s + transcript.request.due_s - clock()))
            group.create_task(follow(transcript))
    ends = [transcript.ended_s for transcript in transcripts if transcript.ended_s is not None]
    return Run(transcripts, max(ends) - requests[0].due_s)
