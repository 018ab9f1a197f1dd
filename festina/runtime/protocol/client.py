"""What a client does with its requests, without I/O (DESIGN sections 1 and 5).

A request's life: Submit → Placed → Generate → Accepted → Tokens… → Finished or Failed. Each request
ends exactly once, and its tokens reach the caller in order, none missing and none twice. A message
that was lost is made good by a timer: an unanswered Submit or Generate is sent again (both are
idempotent), a silent request is asked after with `Probe`, and every wait has a bound.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from festina.config import LinkConfig
from festina.errors import (
    AgentLostError,
    BadRequestError,
    CancelledError,
    FestinaError,
    OverloadedError,
    ProtocolError,
    SchedulerLostError,
    from_info,
)
from festina.messages import (
    Accepted,
    AnyMessage,
    Cancel,
    Cluster,
    Failed,
    Finished,
    Ping,
    Placed,
    Pong,
    Probe,
    Refused,
    Tokens,
)
from festina.runtime.protocol.client_effects import (
    SCHEDULER,
    ClientLimits,
    Connect,
    Counters,
    Disconnect,
    Effect,
    Tell,
    TellCluster,
)
from festina.runtime.protocol.client_links import AgentLink, ClusterQuestion, Heartbeats
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.request import Event, Job, Request, Stage


class ClientLogic:
    """All requests of one client. Holds no socket and no clock.

    A message that could not be queued counts as lost: the timers mend it.

    Args:
        link: Heartbeat interval and how many may be missed.
        limits: Bounds.
        rng: Spreads the pauses before retries.
    """

    def __init__(self, link: LinkConfig, limits: ClientLimits, rng: random.Random) -> None:
        self._limits = limits
        self._rng = rng
        self._tick_s = min(link.heartbeat_s, limits.resend_s) / 4
        self._tick = 0.0
        self._requests: dict[str, Request] = {}
        self._agents: dict[str, AgentLink] = {}
        self._heartbeats = Heartbeats(link)
        self._question = ClusterQuestion(limits)
        self.counters = Counters()

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._requests)

    # From the caller

    def start(self, job: Job, now: float) -> list[Effect]:
        """Begin a request.

        Raises:
            OverloadedError: `requests_max` are in flight.
            BadRequestError: A request with this id is in flight.
        """
        if len(self._requests) >= self._limits.requests_max:
            raise OverloadedError(
                f"{len(self._requests)} requests are in flight",
                expected=f"at most {self._limits.requests_max}",
                retry_after_ms=round(self._limits.backoff_s * 1000),
            )
        request = Request(job, began=now)
        if request.request_id in self._requests:
            raise BadRequestError(
                f"{request.request_id!r} is in flight", field="request_id", expected="a new one"
            )
        self._requests[request.request_id] = request
        return [self._submit(request, now)]

    def cancel(self, request_id: str, now: float) -> list[Effect]:
        """End a request with `CancelledError`; one that has ended stays as it ended."""
        request = self._requests.get(request_id)
        if request is None:
            return []
        return self._abandon(request, CancelledError("cancelled by its caller"), now)

    def ask_cluster(self, now: float) -> list[Effect]:
        """Ask the scheduler for the state of the cluster."""
        return self._question.ask(now)

    def close(self, now: float) -> list[Effect]:
        """Cancel everything."""
        return [effect for name in list(self._requests) for effect in self.cancel(name, now)]

    # From the wire

    def on_message(
        self, peer: bytes, message: AnyMessage | ProtocolError, now: float
    ) -> list[Effect]:
        """What to do about a message.

        Args:
            peer: `SCHEDULER`, or the endpoint of an agent.
            message: What it sent, or why that was no message.
            now: Seconds on a clock that never goes back.
        """
        if isinstance(message, ProtocolError):
            self.counters.malformed += 1
            return []
        if peer == SCHEDULER:
            return self._on_scheduler(message, now)
        agent = self._agents.get(peer.decode())
        if agent is None:
            return self._stray()
        agent.unanswered = None
        return self._on_agent(agent, message, now)

    def next_timer(self, now: float) -> float | None:
        """When to call `on_timer`; None while nothing is waited for."""
        if self._requests or self._agents or self._question.open:
            return max(now, self._tick)
        return None

    def on_timer(self, now: float) -> list[Effect]:
        """Heartbeats, repeats and timeouts. The shell reads all its links before."""
        if now < self._tick:
            return []
        self._tick = now + self._tick_s
        effects = self._question.watch(now)
        for agent in list(self._agents.values()):
            effects += self._watch_agent(agent, now)
        for request in list(self._requests.values()):
            effects += self._watch_request(request, now)
        return effects

    def _on_scheduler(self, message: AnyMessage, now: float) -> list[Effect]:
        match message:
            case Placed(request_id) | Refused(request_id):
                request = self._requests.get(request_id)
                if request is None or request.stage is not Stage.SUBMITTED:
                    return self._stray()
                if isinstance(message, Placed):
                    return self._place(request, message, now)
                return self._refuse(request, from_info(message.error), now)
            case Cluster():
                self._question.answered()
                return [TellCluster(message)]
            case Ping(nonce):
                return [Send("scheduler", SCHEDULER, Pong(nonce, 0))]
            case Failed("", error):
                return self._unreadable(Stage.SUBMITTED, self._requests, from_info(error), now)
        return self._stray()

    def _on_agent(self, agent: AgentLink, message: AnyMessage, now: float) -> list[Effect]:
        match message:
            case Tokens(request_id) | Accepted(request_id):
                if request_id not in agent.request_ids:
                    return [*self._stray(), agent.send(Cancel(request_id))]
                request = self._requests[request_id]
                self._hear(request, now)
                if isinstance(message, Tokens):
                    return self._take(request, message, now)
                return [Tell(request_id, message)]
            case Finished(request_id) if request_id in agent.request_ids:
                return self._finish(self._requests[request_id], message, now)
            case Failed(request_id, error) if request_id in agent.request_ids:
                return self._refuse(self._requests[request_id], from_info(error), now)
            case Failed("", error):
                return self._unreadable(Stage.SENT, agent.request_ids, from_info(error), now)
            case Ping(nonce):
                return [agent.send(Pong(nonce, 0))]
            case Pong(_, epoch):
                return self._restarted(agent, epoch, now) if epoch > agent.epoch else []
        return self._stray()

    def on_connect_failed(self, endpoint: str, error: FestinaError, now: float) -> list[Effect]:
        """No link to that agent can be opened: its requests end with `error`."""
        agent = self._agents.pop(endpoint)
        lost = [self._requests[name] for name in sorted(agent.request_ids)]
        return [effect for request in lost for effect in self._end(request, error, now)]

    # Steps of a request

    def _submit(self, request: Request, now: float) -> Send:
        request.stage = Stage.SUBMITTED
        request.since = request.asked = now
        return Send("scheduler", SCHEDULER, request.job.submit)

    def _place(self, request: Request, placed: Placed, now: float) -> list[Effect]:
        effects: list[Effect] = []
        agent = self._agents.get(placed.endpoint)
        if agent is None:
            agent = self._agents[placed.endpoint] = AgentLink(placed.endpoint, placed.epoch, now)
            effects.append(Connect(placed.endpoint, placed.server_key))
        elif placed.epoch > agent.epoch:
            effects += self._restarted(agent, placed.epoch, now)
        agent.request_ids.add(request.request_id)
        request.placed = placed
        request.stage = Stage.SENT
        request.since = request.asked = request.heard = now
        effects.append(agent.send(request.generate(placed, now)))
        return effects

    def _hear(self, request: Request, now: float) -> None:
        request.stage = Stage.RUNNING
        request.since = request.heard = now

    def _take(self, request: Request, tokens: Tokens, now: float) -> list[Effect]:
        try:
            fresh = request.take(tokens, now)
        except ProtocolError as error:
            self.counters.gaps += 1
            return self._abandon(request, error, now)
        if not fresh:
            self.counters.duplicates += 1
            return []
        return [Tell(request.request_id, tokens)]

    def _finish(self, request: Request, finished: Finished, now: float) -> list[Effect]:
        try:
            event: Event = request.finish(finished)
        except ProtocolError as error:
            self.counters.gaps += 1
            event = error
        return self._end(request, event, now)

    def _refuse(self, request: Request, error: FestinaError, now: float) -> list[Effect]:
        """Try again later if that was asked for and cannot repeat a token; else end."""
        may_retry = request.tries < request.job.retries and request.outputs == 0
        if not may_retry or error.retry_after_ms <= 0:
            return self._end(request, error, now)
        self._detach(request, now)
        pause = self._limits.backoff_s * 2**request.tries * self._rng.uniform(1.0, 1.5)
        pause = min(max(pause, error.retry_after_ms / 1000), self._limits.backoff_s_max)
        request.tries += 1
        request.stage = Stage.PAUSED
        request.resume = now + pause
        return []

    def _abandon(self, request: Request, error: FestinaError, now: float) -> list[Effect]:
        """End a request that its agent may still run."""
        agent = self._agent_of(request)
        effects = self._end(request, error, now)
        return effects if agent is None else [agent.send(Cancel(request.request_id)), *effects]

    def _end(self, request: Request, event: Event, now: float) -> list[Effect]:
        self._detach(request, now)
        del self._requests[request.request_id]
        return [Tell(request.request_id, event)]

    def _detach(self, request: Request, now: float) -> None:
        agent = self._agent_of(request)
        if agent is not None:
            agent.request_ids.discard(request.request_id)
            agent.used = now
        request.placed = None

    def _agent_of(self, request: Request) -> AgentLink | None:
        return None if request.placed is None else self._agents.get(request.placed.endpoint)

    # Trouble

    def _stray(self) -> list[Effect]:
        self.counters.strays += 1
        return []

    def _unreadable(
        self, stage: Stage, request_ids: Iterable[str], error: FestinaError, now: float
    ) -> list[Effect]:
        """A peer could not read a frame of ours: what it has not answered will not be answered."""
        waiting = [self._requests[name] for name in request_ids]
        return [
            effect
            for request in waiting
            if request.stage is stage
            for effect in self._end(request, error, now)
        ]

    def _restarted(self, agent: AgentLink, epoch: int, now: float) -> list[Effect]:
        agent.epoch = epoch
        return self._lose(agent, "was started anew", now)

    def _lose(self, agent: AgentLink, what: str, now: float) -> list[Effect]:
        lost = [self._requests[name] for name in sorted(agent.request_ids)]
        return [
            effect
            for request in lost
            for effect in self._end(
                request, AgentLostError(f"the agent at {agent.endpoint} {what}"), now
            )
        ]

    def _watch_agent(self, agent: AgentLink, now: float) -> list[Effect]:
        if not agent.request_ids:
            agent.unanswered = None
            if now - agent.used < self._limits.idle_s:
                return []
            del self._agents[agent.endpoint]
            return [Disconnect(agent.endpoint)]
        if self._heartbeats.is_dead(agent, now):
            effects = self._lose(agent, "does not answer", now)
            del self._agents[agent.endpoint]
            return [*effects, Disconnect(agent.endpoint)]
        return self._heartbeats.beat(agent, now)

    def _watch_request(self, request: Request, now: float) -> list[Effect]:
        if request.stage is Stage.PAUSED:
            return [self._submit(request, now)] if now >= request.resume else []
        if request.stage is Stage.RUNNING and request.asked <= request.heard:
            request.since = now
            if now - request.heard < self._limits.probe_s:
                return []
        if now - request.since >= self._limits.answer_timeout_s:
            return self._give_up(request, now)
        if now - request.asked < self._limits.resend_s:
            return []
        request.asked = now
        self.counters.resent += 1
        return [self._ask_again(request, now)]

    def _ask_again(self, request: Request, now: float) -> Send:
        agent = self._agent_of(request)
        if request.placed is None or agent is None:
            return Send("scheduler", SCHEDULER, request.job.submit)
        if request.stage is Stage.SENT:
            return agent.send(request.generate(request.placed, now))
        return agent.send(Probe(request.request_id))

    def _give_up(self, request: Request, now: float) -> list[Effect]:
        if request.stage is Stage.SUBMITTED:
            return self._end(request, SchedulerLostError("the scheduler does not answer"), now)
        return self._abandon(request, AgentLostError("its agent does not answer for it"), now)
