"""The steps of a client's requests, from `Submit` to their one end; see `…protocol.client`."""

from __future__ import annotations

import random

from festina.errors import (
    AgentLostError,
    DeviceError,
    FestinaError,
    FrameTooLargeError,
    ProtocolError,
)
from festina.messages import (
    Attached,
    Cancel,
    Finished,
    Generate,
    Moving,
    Placed,
    Probe,
    Tokens,
    encode,
)
from festina.runtime.protocol.client_effects import (
    ClientLimits,
    Connect,
    Counters,
    Effect,
    Tell,
)
from festina.runtime.protocol.client_links import AgentLink, Schedulers
from festina.runtime.protocol.client_moves import ClientMoves
from festina.runtime.protocol.client_retry import Retries
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.request import Event, Request, Stage


class RequestSteps:
    """Requests in flight, the agents that have them, and what becomes of both.

    Args:
        limits: Bounds.
        schedulers: Whom to ask for a place.
        rng: Spreads the pauses before retries.

    Attributes:
        counters: What went wrong on the wire so far.
    """

    def __init__(self, limits: ClientLimits, schedulers: Schedulers, rng: random.Random) -> None:
        self._limits = limits
        self._schedulers = schedulers
        self._retries = Retries(limits, rng)
        self._requests: dict[str, Request] = {}
        self._agents: dict[str, AgentLink] = {}
        self._moves = ClientMoves(self._agents)
        self.counters = Counters()

    # Requests that move

    def _request_of(self, agent: AgentLink, request_id: str) -> Request | None:
        """The request, if that agent has it, will have it, or has had it."""
        request = self._requests.get(request_id)
        if request is None or request_id in agent.request_ids:
            return request
        return request if agent.endpoint in request.trail.former else None

    def _follow(
        self, agent: AgentLink, request: Request, moving: Moving, now: float
    ) -> list[Effect]:
        """Its agent says where it may go, or has gone."""
        trail, placed = request.trail, request.placed
        if placed is None or placed.endpoint != agent.endpoint or trail.key == moving.key:
            return self._stray()
        if trail.denied == moving.key:
            error = AgentLostError(f"{moving.agent}, where it moved to, has not got it")
            return self._resume(request, error, now)
        self._hear(request, now)
        return self._moves.follow(trail, moving, request.outputs, now)

    def _arrive(self, request: Request, attached: Attached, now: float) -> list[Effect]:
        """An agent says that it has the request."""
        trail, placed = request.trail, request.placed
        if placed is not None and self._moves.knows(trail, attached):
            request.placed = self._moves.arrive(trail, placed, now)
            self._hear(request, now)
        elif trail.key == attached.key:
            self._hear(request, now)
        else:
            return self._stray()
        return []

    def _stay(self, request: Request, now: float) -> list[Effect]:
        """It does not go where it was to go: ask the agent that had it."""
        self._moves.drop(request.trail, request.request_id, now, denied=True)
        agent = self._agent_of(request)
        return [] if agent is None else [agent.send(Probe(request.request_id))]

    def _missing(self, request: Request, now: float) -> list[Effect] | None:
        """Ask for what is missing of a request that has moved; None if that cannot help."""
        placed = request.placed
        if placed is None:
            return None
        pause_s = self._limits.resend_s
        asked = self._moves.missing(request.trail, placed, request.outputs, now, pause_s)
        return None if asked is None else [*asked]

    # Steps of a request

    def _submit(self, request: Request, now: float) -> Send:
        request.stage = Stage.SUBMITTED
        request.since = request.asked = now
        return self._schedulers.ask(request.submit())

    def _place(self, request: Request, placed: Placed, now: float) -> list[Effect]:
        generate = request.generate(placed, now)
        if request.broken is not None and not _fits(generate):
            return self._end(request, request.broken.error, now)
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
        effects.append(agent.send(generate))
        return effects

    def _hear(self, request: Request, now: float) -> None:
        request.stage = Stage.RUNNING
        request.since = request.heard = now
        request.broken = None

    def _take(self, request: Request, tokens: Tokens, now: float) -> list[Effect]:
        try:
            fresh = request.take(tokens, now)
        except ProtocolError as error:
            self.counters.gaps += 1
            asked = self._missing(request, now)
            if asked is not None:
                return asked
            return self._resume(request, error, now, avoid=False, cancel=True)
        if not fresh:
            self.counters.duplicates += 1
            return []
        return [Tell(request.request_id, tokens)]

    def _finish(self, request: Request, finished: Finished, now: float) -> list[Effect]:
        try:
            ended = request.finish(finished)
        except ProtocolError as error:
            self.counters.gaps += 1
            asked = self._missing(request, now)
            return self._resume(request, error, now, avoid=False) if asked is None else asked
        return self._end(request, ended, now)

    def _fail(self, request: Request, error: FestinaError, now: float) -> list[Effect]:
        """Its agent has ended it."""
        if isinstance(error, AgentLostError | DeviceError):
            return self._resume(request, error, now)
        return self._refuse(request, error, now)

    def _refuse(self, request: Request, error: FestinaError, now: float) -> list[Effect]:
        """Try again later, or end."""
        pause_s = self._retries.after(request, error, now)
        if isinstance(pause_s, FestinaError):
            return self._end(request, pause_s, now)
        self._detach(request, now)
        request.stage = Stage.PAUSED
        request.resume = now + pause_s
        return []

    def _resume(
        self,
        request: Request,
        error: FestinaError,
        now: float,
        *,
        avoid: bool = True,
        cancel: bool = False,
    ) -> list[Effect]:
        """Its stream broke: go on elsewhere after what has come, or end if it broke too often.

        Args:
            request: Which.
            error: Why it broke, and what it ends with.
            now: Seconds.
            avoid: Whether its agent is to blame, so that another is better.
            cancel: Whether its agent may still run it.
        """
        if not self._retries.may_resume(request):
            return self._end(request, error, now, cancel=cancel)
        self.counters.resumed += 1
        said = self._cancels(request) if cancel else []
        placed = request.placed
        request.lose(error, placed.agent if placed is not None and avoid else "", now)
        self._detach(request, now)
        return [*said, self._submit(request, now)]

    def _end(
        self, request: Request, event: Event, now: float, *, cancel: bool = False
    ) -> list[Effect]:
        said = self._cancels(request) if cancel else []
        self._detach(request, now)
        del self._requests[request.request_id]
        return [*said, Tell(request.request_id, event)]

    def _cancels(self, request: Request) -> list[Effect]:
        """Tell whoever has it, or will have it, that nobody wants it."""
        target = request.trail.target
        places = {} if request.placed is None else {request.placed.endpoint: None}
        if target is not None:
            places[target.endpoint] = None
        agents = [self._agents[place] for place in places if place in self._agents]
        return [agent.send(Cancel(request.request_id)) for agent in agents]

    def _detach(self, request: Request, now: float) -> None:
        self._moves.drop(request.trail, request.request_id, now)
        request.trail.forget()
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

    def _restarted(self, agent: AgentLink, epoch: int, now: float) -> list[Effect]:
        agent.epoch = epoch
        return self._lose(agent, "was started anew", now)

    def _lose(self, agent: AgentLink, what: str, now: float) -> list[Effect]:
        lost = [self._requests[name] for name in sorted(agent.request_ids)]
        error = AgentLostError(f"the agent at {agent.endpoint} {what}")
        return [e for request in lost for e in self._lose_one(agent, request, error, now)]

    def _lose_one(
        self, agent: AgentLink, request: Request, error: FestinaError, now: float
    ) -> list[Effect]:
        trail = request.trail
        if self._moves.is_target(trail, agent):
            return self._stay(request, now)
        if trail.target is None or request.placed is None:
            return self._resume(request, error, now)
        # It may be at its target already; if not, that says so.
        attach = self._moves.attach_target(trail, request.outputs)
        request.placed = self._moves.arrive(trail, request.placed, now)
        request.since = request.asked = now
        return [*attach]


def _fits(generate: Generate) -> bool:
    """Whether it can still be sent, with all that has been received."""
    try:
        encode(generate)
    except FrameTooLargeError:
        return False
    return True
