"""Looks at every message of agents and every event of callers: promise 1, and refusals of 4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from festina.errors import ErrorInfo, FestinaError, OverloadedError
from festina.messages import (
    Accepted,
    AnyMessage,
    Attached,
    Failed,
    Finished,
    Generate,
    Refused,
    Tokens,
)
from festina.runtime.protocol.request import Ended, Event, Job
from festina.simulator.faults.demand import GENEROUS, Ask, right_answer
from festina.simulator.faults.journal import Journal
from festina.simulator.faults.plan import Plan

RETRY_AFTER_MS_MAX = 60_000
SLACK_S = 0.5
"""Clients look at their clocks several times in that."""

QUEUED_S_MAX = 20.0
"""The longest that any request of these plans waits at an agent, beside what its pace allows."""


@dataclass(slots=True)
class Seen:
    """A request as its caller sees it."""

    ask: Ask
    began: float
    token_ids: list[int] = field(default_factory=list)
    tickets: set[int] = field(default_factory=set)
    text: str = ""
    answered: bool = False
    end: Ended | FestinaError | None = None

    @property
    def job(self) -> Job:
        """What was asked."""
        return self.ask.job


@dataclass(slots=True)
class Run:
    """A request as one agent process tells of it."""

    ticket: int
    accepted: bool = False
    ended: bool = False
    outputs: int = 0


class Watch:
    """Knows what has been asked and what was answered.

    Args:
        journal: Hears of broken promises.
        plan: What happens.
    """

    def __init__(self, journal: Journal, plan: Plan) -> None:
        self._journal = journal
        self._plan = plan
        self._seen: dict[tuple[str, str], Seen] = {}
        self._runs: dict[tuple[str, int, bytes, str], Run] = {}
        self._owned: dict[str, set[tuple[str, int]]] = {}
        self._keys: set[str] = set()
        self._owners: dict[tuple[str, int], str] = {}

    # Callers

    def asked(self, ask: Ask, now: float) -> None:
        """A caller starts a request."""
        self._seen[ask.client, ask.job.submit.request_id] = Seen(ask, now)

    def told(self, client: str, request_id: str, event: Event, now: float) -> None:
        """A caller hears of its request."""
        seen = self._seen.get((client, request_id))
        if seen is None:
            self._journal.breach(1, now, f"{request_id} of {client} was never asked for")
            return
        if seen.end is not None:
            self._journal.breach(1, now, f"{request_id}: {type(event).__name__} after its end")
            return
        if not seen.answered:
            seen.answered = True
            self._waited(seen, "the first answer", now, 0.0)
        if isinstance(event, Tokens):
            self._tokens(seen, event, now)
        elif isinstance(event, Ended | FestinaError):
            self._ended(seen, event, now)

    def vanished(self, client: str) -> None:
        """A client has crashed: nobody waits for its requests."""
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] != client}

    @property
    def open(self) -> list[str]:
        """Requests that have not ended."""
        return [seen.job.submit.request_id for seen in self._seen.values() if seen.end is None]

    def finish(self, now: float) -> None:
        """The run is over: every request must have ended."""
        for request_id in self.open:
            self._journal.breach(1, now, f"{request_id} has not ended")

    def _tokens(self, seen: Seen, tokens: Tokens, now: float) -> None:
        expected = len(seen.token_ids)
        if tokens.index != expected:
            self._journal.breach(
                1, now, f"{tokens.request_id}: token {tokens.index} where {expected} was due"
            )
        seen.token_ids += tokens.token_ids
        seen.text += tokens.text

    def _ended(self, seen: Seen, end: Ended | FestinaError, now: float) -> None:
        seen.end = end
        for wrong in _wrong(seen, end):
            self._journal.breach(1, now, f"{seen.job.submit.request_id}: {wrong}")
        if isinstance(end, FestinaError):
            self._journal.ends[end.code] += 1
            self._refusal(end.info(), now)
            if seen.ask.sure:
                what = f"{seen.job.submit.request_id} failed long after the last fault: {end}"
                self._journal.breach(4, now, what)
        else:
            self._journal.ends["complete"] += 1
        slo = seen.job.generate.slo or GENEROUS
        paced_s = (slo.ttft_ms + seen.job.generate.max_tokens * slo.tbt_ms) / 1e3
        self._waited(seen, "its end", now, paced_s + QUEUED_S_MAX)

    def _waited(self, seen: Seen, what: str, now: float, served_s: float) -> None:
        """Every wait of a client has a bound, whoever is away."""
        limits, retries = self._plan.limits, seen.job.retries
        breaks = min(limits.resumptions_max, len(seen.tickets))
        tries = 1 + retries + breaks
        waits = 2 * tries if seen.tickets else tries  # for the scheduler, and for an agent
        bound_s = waits * limits.answer_timeout_s + retries * limits.backoff_s_max
        bound_s += breaks * (limits.resume_s + limits.backoff_s_max + served_s)
        bound_s += served_s + self._plan.frozen_s(seen.ask.client) + SLACK_S
        waited_s = now - seen.began
        if waited_s > bound_s:
            name = seen.job.submit.request_id
            text = f"{name} waited {waited_s:.1f} s for {what}, of at most {bound_s:.1f} s"
            self._journal.breach(4, now, text)

    # The wire

    def client_sent(self, client: str, message: AnyMessage) -> None:
        """A client says something to an agent: a stream can break as often as it was placed."""
        if isinstance(message, Generate) and (client, message.request_id) in self._seen:
            self._seen[client, message.request_id].tickets.add(message.ticket)

    def scheduler_sent(self, message: AnyMessage, now: float) -> None:
        """A scheduler says something."""
        if isinstance(message, Refused):
            self._refusal(message.error, now)

    def agent_heard(self, agent: str, epoch: int, peer: bytes, generate: Generate) -> None:
        """An agent is asked to run a request: a larger ticket is another try."""
        key = agent, epoch, peer, generate.request_id
        if key not in self._runs or self._runs[key].ticket < generate.ticket:
            self._runs[key] = Run(generate.ticket, outputs=len(generate.received))

    def owns(self, agent: str, requests: set[tuple[str, int]], now: float) -> None:
        """An agent has these requests, by id and ticket: nobody else may have one of them."""
        before = self._owned.get(agent, set())
        for request in before - requests:
            if self._owners.get(request) == agent:
                del self._owners[request]
        for request in sorted(requests - before):
            other = self._owners.setdefault(request, agent)
            if other != agent:
                self._journal.breach(1, now, f"{agent} and {other} both have {request}")
        self._owned[agent] = requests

    def agent_sent(
        self, agent: str, epoch: int, peer: bytes, message: AnyMessage, now: float
    ) -> None:
        """An agent says something to a client: it runs a request once, and ends it once."""
        if isinstance(message, Failed):
            self._refusal(message.error, now)
        if isinstance(message, Attached):  # whatever was said before, it goes on from there
            place = agent, epoch, peer, message.request_id
            ticket = self._runs[place].ticket if place in self._runs else 0
            self._runs[place] = Run(ticket, accepted=True, outputs=message.index)
            if message.key not in self._keys:
                self._keys.add(message.key)
                self._journal.fault(now, "moved", message.request_id)
            return
        if not isinstance(message, Accepted | Tokens | Finished | Failed):
            return
        run = self._runs.get((agent, epoch, peer, message.request_id))
        if run is None:
            if not isinstance(message, Failed):  # which answers probes and frames too
                what = f"{agent} about {message.request_id}, which nobody has asked it to run"
                self._journal.breach(1, now, what)
            return
        for wrong in _contradiction(run, message):
            self._journal.breach(1, now, f"{agent} about {message.request_id}: {wrong}")

    def _refusal(self, error: ErrorInfo, now: float) -> None:
        if error.code != OverloadedError.code:
            return
        if not error.message or not 0 < error.retry_after_ms <= RETRY_AFTER_MS_MAX:
            self._journal.breach(
                4, now, f"overload without a reason or a time to try again: {error}"
            )


def _wrong(seen: Seen, end: Ended | FestinaError) -> Iterator[str]:
    answer, got = right_answer(seen.job), tuple(seen.token_ids)
    if got != answer[: len(got)]:
        yield f"tokens {got}, not {answer}"
    if isinstance(end, FestinaError):
        if end.code == FestinaError.code:
            yield f"ended with an error without a type: {end}"
        return
    if len(got) != len(answer) or end.usage.output_tokens != len(answer):
        yield f"complete after {len(got)} tokens of {len(answer)}; {end.usage.output_tokens} billed"
    text = seen.text + end.text
    if text != bytes(answer).decode("ascii"):
        yield f"text {text!r}"


def _contradiction(run: Run, message: Accepted | Tokens | Finished | Failed) -> Iterator[str]:
    """What contradicts what the same process has said before; takes note of the message."""
    if isinstance(message, Failed):
        run.ended = run.accepted  # else it was refused, and may be asked for again
        return
    kind = type(message).__name__
    if run.ended:
        yield f"{kind} after its end"
    if isinstance(message, Accepted):
        run.accepted = True
    elif not run.accepted:
        yield f"{kind} before it was accepted"
    if isinstance(message, Tokens):
        if message.index != run.outputs:
            yield f"token {message.index} where {run.outputs} was due"
        run.outputs = message.index + len(message.token_ids)
    elif isinstance(message, Finished):
        run.ended = True
        if message.usage.output_tokens != run.outputs:
            yield f"{message.usage.output_tokens} tokens billed, {run.outputs} sent"
