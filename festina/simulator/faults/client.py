"""A client as a process in virtual time, with callers that only listen."""

from __future__ import annotations

import random
from collections.abc import Iterable

from festina.errors import FestinaError
from festina.messages import AnyMessage
from festina.runtime.protocol.client_effects import (
    SCHEDULER as SCHEDULER_PEER,
)
from festina.runtime.protocol.client_effects import (
    STANDBY as STANDBY_PEER,
)
from festina.runtime.protocol.client_effects import (
    Connect,
    Disconnect,
    Effect,
    Tell,
    TellCluster,
)
from festina.runtime.protocol.effects import Send
from festina.simulator.faults.agent import endpoint_of
from festina.simulator.faults.demand import Ask
from festina.simulator.faults.plan import AGENTS, SCHEDULER, STANDBY
from festina.simulator.faults.process import Process, Site

_SCHEDULERS = {SCHEDULER: SCHEDULER_PEER, STANDBY: STANDBY_PEER}
_AT = {peer: name for name, peer in _SCHEDULERS.items()}
_AGENT_AT = {endpoint_of(agent).encode(): agent for agent in AGENTS}


class ClientProcess(Process):
    """One client. Every link to an agent has an identity of its own, as a new socket has.

    Attributes:
        logic: What is under test.
    """

    def __init__(self, site: Site, name: str) -> None:
        super().__init__(site, name)
        self._links: dict[bytes, bytes] = {}
        self._opened = 0
        rng = random.Random(f"client/{site.plan.seed}/{name}")
        config = site.plan.config
        self.logic = site.parts.client(
            config.link, site.plan.limits, rng, standby=site.plan.standby
        )

    def ask(self, ask: Ask) -> None:
        """A caller starts a request, and may cancel it later."""
        self.site.watch.asked(ask, self.site.network.now)
        request_id = ask.job.submit.request_id
        try:
            self._act(self.logic.start(ask.job, self.now))
        except FestinaError as error:
            self.site.watch.told(self.name, request_id, error, self.site.network.now)
            return
        if ask.cancel_at is not None:
            delay_s = ask.cancel_at - self.site.network.now
            self.later(delay_s, lambda: self._cancel(request_id))

    def crash(self) -> None:
        """See `Process`."""
        super().crash()
        self.site.watch.vanished(self.name)

    def receive(self, source: str, identity: bytes, message: AnyMessage) -> None:
        """See `Process`."""
        if source in _SCHEDULERS:
            self._act(self.logic.on_message(_SCHEDULERS[source], message, self.now))
            return
        peer = endpoint_of(source).encode()
        if self._links.get(peer) != identity:
            self.tell_closed(source, identity)
            return
        self._act(self.logic.on_message(peer, message, self.now))

    def timer(self) -> None:
        """See `Process`."""
        self._act(self.logic.on_timer(self.now))

    def broke(self, other: str) -> None:
        """The connection to another process broke; the next one is another to that process."""
        if other in _SCHEDULERS:
            self._act(self.logic.on_scheduler_closed(self.now))
            return
        endpoint = endpoint_of(other)
        if endpoint.encode() in self._links:
            self._open(endpoint)
            self._act(self.logic.on_closed(endpoint, self.now))

    def _open(self, endpoint: str) -> None:
        self._opened += 1
        self._links[endpoint.encode()] = f"{self.name}/{self._opened}".encode()

    def _cancel(self, request_id: str) -> None:
        self.site.journal.fault(self.site.network.now, "cancelled", request_id)
        self._act(self.logic.cancel(request_id, self.now))

    def _act(self, effects: Iterable[Effect]) -> None:
        site = self.site
        for effect in effects:
            match effect:
                case Send(_, peer, message) if peer in _AT:
                    site.network.send(self.name, _AT[peer], self.name.encode(), message)
                case Send(_, peer, message):
                    # Effects may end with a word to an agent whose link they have closed.
                    if peer in self._links:
                        site.watch.client_sent(self.name, message)
                        agent = _AGENT_AT[peer]
                        site.network.send(self.name, agent, self._links[peer], message)
                case Tell(request_id, event):
                    site.journal.note(site.network.now, f"{self.name} {request_id} {event}")
                    site.watch.told(self.name, request_id, event, site.network.now)
                case Connect(endpoint):
                    self._open(endpoint)
                case Disconnect(endpoint):
                    del self._links[endpoint.encode()]
                case TellCluster():
                    raise AssertionError("no caller has asked for the cluster")
        limits = site.plan.limits
        in_flight = self.logic.in_flight
        site.journal.use(
            "requests of a client", in_flight, limits.requests_max, site.network.now, self.name
        )
        self.settle(self.logic.next_timer(self.now))
