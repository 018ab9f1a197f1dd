"""What a client does with its requests, without I/O (DESIGN sections 1 and 5).

A request's life: Submit → Placed → Generate → Accepted → Tokens… → Finished or Failed. Each request
ends exactly once, and its tokens reach the caller in order, none missing and none twice. A message
that was lost is made good by a timer: an unanswered Submit or Generate is sent again (both are
idempotent), a silent request is asked after with `Probe`, and every wait has a bound.

A stream that breaks, as its agent dies, hangs, leaves or loses tokens, is submitted again with the
tokens that have come, and goes on elsewhere after the last of them.
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
    Attached,
    Cancel,
    Cluster,
    Failed,
    Finished,
    Moving,
    Ping,
    Placed,
    Pong,
    Probe,
    Refused,
    Tokens,
)
from festina.runtime.protocol.client_effects import (
    ClientLimits,
    Disconnect,
    Effect,
    Tell,
    TellCluster,
)
from festina.runtime.protocol.client_links import (
    AgentLink,
    ClusterQuestion,
    Heartbeats,
    Schedulers,
)
from festina.runtime.protocol.client_steps import RequestSteps
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.request import Job, Request, Stage

REASK_S = 0.02
"""However often connections break, nothing is asked of a scheduler again sooner than this."""


class ClientLogic(RequestSteps):
    """All requests of one client. Holds no socket and no clock.

    A message that could not be queued counts as lost: the timers mend it.

    Args:
        link: Heartbeat interval and how many may be missed.
        limits: Bounds.
        rng: Spreads the pauses before retries.
        standby: There is a second scheduler, the peer `STANDBY`.
    """

    def __init__(
        self, link: LinkConfig, limits: ClientLimits, rng: random.Random, *, standby: bool = False
    ) -> None:
        super().__init__(limits, Schedulers(standby=standby), rng)
        self._failover_s = min(link.heartbeat_s, limits.resend_s) if standby else limits.resend_s
        self._tick_s = min(link.heartbeat_s, limits.resend_s) / 4
        self._tick = 0.0
        self._heartbeats = Heartbeats(link)
        self._question = ClusterQuestion(limits, self._schedulers)

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
        error = CancelledError("cancelled by its caller")
        return self._end(request, error, now, cancel=True)

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
            peer: `SCHEDULER`, `STANDBY`, or the endpoint of an agent.
            message: What it sent, or why that was no message.
            now: Seconds on a clock that never goes back.
        """
        if isinstance(message, ProtocolError):
            self.counters.malformed += 1
            return []
        if peer in self._schedulers:
            return self._on_scheduler(peer, message, now)
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

    def _on_scheduler(self, peer: bytes, message: AnyMessage, now: float) -> list[Effect]:
        match message:
            case Placed(request_id) | Refused(request_id):
                request = self._requests.get(request_id)
                if request is None or request.stage is not Stage.SUBMITTED:
                    return self._stray()
                self._schedulers.answered(peer)
                if isinstance(message, Placed):
                    late = message.ticket <= request.given_up
                    return self._stray() if late else self._place(request, message, now)
                return self._refuse(request, from_info(message.error), now)
            case Cluster():
                self._question.answered()
                return [TellCluster(message)]
            case Ping(nonce):
                return [Send("scheduler", peer, Pong(nonce, 0))]
            case Failed("", error):
                return self._unreadable(Stage.SUBMITTED, self._requests, from_info(error), now)
        return self._stray()

    def _on_agent(self, agent: AgentLink, message: AnyMessage, now: float) -> list[Effect]:
        match message:
            case Tokens(request_id) | Accepted(request_id):
                request = self._request_of(agent, request_id)
                if request is None:
                    return [*self._stray(), agent.send(Cancel(request_id))]
                self._hear(request, now)
                if isinstance(message, Tokens):
                    return self._take(request, message, now)
                return [Tell(request_id, message)]
            case Finished(request_id) if request_id in agent.request_ids:
                return self._finish(self._requests[request_id], message, now)
            case Failed(request_id, error) if request_id in agent.request_ids:
                request = self._requests[request_id]
                if self._moves.is_target(request.trail, agent):
                    return self._stay(request, now)
                return self._fail(request, from_info(error), now)
            case Moving(request_id) if request_id in agent.request_ids:
                return self._follow(agent, self._requests[request_id], message, now)
            case Attached(request_id) if request_id in agent.request_ids:
                return self._arrive(self._requests[request_id], message, now)
            case Failed("", error):
                return self._unreadable(Stage.SENT, agent.request_ids, from_info(error), now)
            case Ping(nonce):
                return [agent.send(Pong(nonce, 0))]
            case Pong(_, epoch):
                return self._restarted(agent, epoch, now) if epoch > agent.epoch else []
        return self._stray()

    def on_closed(self, endpoint: str, now: float) -> list[Effect]:
        """The connection to that agent broke, and with it all streams on it.

        A connection that comes back is another client to the agent. The shell reads what had
        arrived before.
        """
        agent = self._agents.get(endpoint)
        return [] if agent is None else self._lose(agent, "closed the connection", now)

    def on_scheduler_closed(self, now: float) -> list[Effect]:
        """The connection to a scheduler broke: what it has not answered is asked again at once."""
        waiting = [
            request
            for request in self._requests.values()
            if request.stage is Stage.SUBMITTED and now - request.asked >= REASK_S
        ]
        for request in waiting:
            request.asked = now
        return [send for r in waiting for send in self._schedulers.ask_all(r.submit())]

    def on_connect_failed(self, endpoint: str, error: FestinaError, now: float) -> list[Effect]:
        """No link to that agent can be opened: its requests end with `error`."""
        agent = self._agents.pop(endpoint)
        lost = [self._requests[name] for name in sorted(agent.request_ids)]
        return [
            effect
            for request in lost
            for effect in (
                self._stay(request, now)
                if self._moves.is_target(request.trail, agent)
                else self._end(request, error, now)
            )
        ]

    # Trouble

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
        agent = self._agent_of(request)
        patience_s = self._failover_s if agent is None else self._limits.resend_s
        if now - request.asked < patience_s:
            return []
        request.asked = now
        self.counters.resent += 1
        return self._ask_again(request, now)

    def _ask_again(self, request: Request, now: float) -> list[Effect]:
        agent = self._agent_of(request)
        if request.placed is None or agent is None:
            return [*self._schedulers.ask_all(request.submit())]
        if request.stage is Stage.SENT:
            return [agent.send(request.generate(request.placed, now))]
        also = self._moves.attach_target(request.trail, request.outputs)
        if request.trail.key:
            return [*also, *(self._missing(request, now) or [])]
        return [*also, agent.send(Probe(request.request_id))]

    def _give_up(self, request: Request, now: float) -> list[Effect]:
        if request.stage is Stage.SUBMITTED:
            return self._end(request, SchedulerLostError("the scheduler does not answer"), now)
        error = AgentLostError("its agent does not answer for it")
        return self._resume(request, error, now, cancel=True)
