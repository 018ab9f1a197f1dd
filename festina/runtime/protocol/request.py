"""One request as its client sees it: what was asked, what came, how it ended."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from msgspec.structs import replace

from festina.errors import FestinaError, ProtocolError
from festina.messages import Accepted, Finished, Generate, Placed, Submit, Tokens
from festina.runtime.protocol.client_trail import Trail
from festina.types import FinishReason, Usage

EXCLUDED_MAX = 8
"""Agents that a request will not go back to for now; the scheduler takes a bounded list."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to run.

    Attributes:
        submit: What the scheduler is told.
        generate: What the agent is told; ticket, epoch and elapsed_ms are filled in.
        retries: How often to try again where the refusal says when (`retry_after_ms`).
    """

    submit: Submit
    generate: Generate
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that ended well.

    Attributes:
        reason: Why it ended.
        usage: What it cost.
        agent: Where it ran last.
        text: Text that came with the end.
        ttft_ms: From submission to the first token; None when there was none.
        gaps_ms: Between messages with tokens, as this client saw them.
    """

    reason: FinishReason
    usage: Usage
    agent: str
    text: str
    ttft_ms: float | None
    gaps_ms: tuple[float, ...]


Event = Accepted | Tokens | Ended | FestinaError
"""What a caller hears of its request; the last two end it."""


class Stage(enum.Enum):
    """What the client waits for."""

    PAUSED = "the time to try again"
    SUBMITTED = "the scheduler's answer"
    SENT = "the agent's answer"
    RUNNING = "tokens"


@dataclass(slots=True)
class Break:
    """A stream that broke and has not gone on yet.

    Attributes:
        error: Why.
        at: When.
        tries: How often the cluster had no place for it since.
    """

    error: FestinaError
    at: float
    tries: int = 0


@dataclass(slots=True)
class Request:
    """A request in flight. Times are seconds on the client's clock.

    Attributes:
        job: What to run.
        began: When its caller started it.
        stage: What it waits for.
        since: When that wait began: after a bound it is given up.
        asked: When the peer was last asked; asked again after a while.
        heard: When its agent last said something about it.
        resume: When to try again, if paused.
        tries: Retries so far.
        placed: Where it runs.
        received: Tokens so far; their number is the index expected next.
        excluded: Agents that it was lost at lately.
        given_up: Largest ticket that has been given up; placements up to it come too late.
        resumptions: How often its stream broke and it was submitted again.
        broken: Why it is not running now, if its stream broke.
        trail: Where it has moved since it was placed.
    """

    job: Job
    began: float
    stage: Stage = Stage.SUBMITTED
    since: float = 0.0
    asked: float = 0.0
    heard: float = 0.0
    resume: float = 0.0
    tries: int = 0
    placed: Placed | None = None
    received: list[int] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    given_up: int = -1
    resumptions: int = 0
    broken: Break | None = None
    trail: Trail = field(default_factory=Trail)
    _first: float | None = None
    _last: float = 0.0
    _gaps_ms: list[float] = field(default_factory=list)

    @property
    def request_id(self) -> str:
        """As submitted."""
        return self.job.submit.request_id

    @property
    def outputs(self) -> int:
        """Tokens so far."""
        return len(self.received)

    def submit(self) -> Submit:
        """What to send to the scheduler: what has been received is input for the next agent."""
        asked = self.job.submit
        if not self.received and not self.excluded:
            return asked
        left = max(1, asked.max_tokens - self.outputs)  # 1: only the end of the stream is missing
        return replace(
            asked,
            input_tokens=asked.input_tokens + asked.max_tokens - left,
            max_tokens=left,
            exclude=(*asked.exclude, *self.excluded),
        )

    def generate(self, placed: Placed, now: float) -> Generate:
        """What to send to the agent that it was placed on."""
        return replace(
            self.job.generate,
            ticket=placed.ticket,
            epoch=placed.epoch,
            elapsed_ms=(now - self.began) * 1000,
            received=tuple(self.received),
        )

    def lose(self, error: FestinaError, agent: str, now: float) -> None:
        """Its stream broke; `agent`, if not "", is not to be asked again at once."""
        self.resumptions += 1
        self.broken = Break(error, now)
        if self.placed is not None:
            self.given_up = self.placed.ticket
        if agent and agent not in self.excluded:
            self.excluded = [*self.excluded, agent][-EXCLUDED_MAX:]

    def take(self, tokens: Tokens, now: float) -> bool:
        """Whether these tokens are new; False when all were seen before.

        Raises:
            ProtocolError: Tokens before them are missing, or only some of them are new, or they are
                more than were asked for.
        """
        end = tokens.index + len(tokens.token_ids)
        if end <= self.outputs:
            return False
        if tokens.index != self.outputs or end > self.job.generate.max_tokens:
            raise ProtocolError(
                f"tokens {tokens.index} to {end - 1} arrived",
                field="index",
                expected=str(self.outputs),
            )
        self.received += tokens.token_ids
        if self._first is None:
            self._first = now
        else:
            self._gaps_ms.append((now - self._last) * 1000)
        self._last = now
        return True

    def finish(self, finished: Finished) -> Ended:
        """The good end.

        Raises:
            ProtocolError: Tokens are missing.
        """
        if finished.usage.output_tokens != self.outputs:
            raise ProtocolError(
                f"the output ended after {self.outputs} tokens",
                field="usage.output_tokens",
                expected=str(finished.usage.output_tokens),
            )
        return Ended(
            reason=finished.reason,
            usage=replace(finished.usage, resumptions=self.resumptions),
            agent="" if self.placed is None else self.placed.agent,
            text=finished.text,
            ttft_ms=None if self._first is None else (self._first - self.began) * 1000,
            gaps_ms=tuple(self._gaps_ms),
        )
