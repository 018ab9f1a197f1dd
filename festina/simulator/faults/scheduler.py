"""The scheduler as a process in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

from festina.errors import ProtocolError
from festina.messages import AnyMessage
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.intake import Intake
from festina.runtime.protocol.pair import PRIMARY, Pair
from festina.simulator.faults.plan import SCHEDULER, STANDBY
from festina.simulator.faults.process import Process, Site
from festina.simulator.faults.profiles import NamedView

CATCH_UP_S = 1e-3
"""How long after it came a summary is taken in; what comes meanwhile goes first."""

Tap = Callable[[bytes, AnyMessage, float], None]


class SchedulerProcess(Process):
    """Starts empty, each time.

    Args:
        site: Where it runs.
        name: `SCHEDULER` or `STANDBY`.

    Attributes:
        tap: Hears what it takes in.
    """

    def __init__(self, site: Site, name: str) -> None:
        super().__init__(site, name)
        self.tap: Tap | None = None
        self.view = NamedView(site.plan.config, site.profiles)
        epoch, link = next(site.epochs), site.plan.config.link
        pair = None
        if site.plan.standby:
            pair = Pair(standby=name == STANDBY, link=link, epoch=epoch, now=self.now)
        self.logic = site.parts.scheduler(site.plan.config, self.view, epoch, pair)
        self._intake = Intake(self)
        self._catching_up = False
        self.timer()

    @property
    def serves(self) -> bool:
        """Whether it is there and answers clients."""
        return self.alive and self.logic.active

    def receive(self, source: str, identity: bytes, message: AnyMessage) -> None:
        """See `Process`; all peers that come to it are alike to a scheduler."""
        peer = b"" if source == SCHEDULER else identity
        self._act(self._intake.serve([(peer, message)], self.now))
        if self._intake.behind and not self._catching_up:
            self._catching_up = True
            self.later(CATCH_UP_S, self.catch_up)

    def timer(self) -> None:
        """See `Process`."""
        self._intake.report(self.now)
        self._act(self.logic.on_timer(self.now))

    def catch_up(self) -> None:
        """Take in what waits."""
        self._catching_up = False
        self._act(self._intake.catch_up(self.now))

    def on_message(
        self, peer: bytes, message: AnyMessage | ProtocolError, now: float
    ) -> list[Send]:
        """See `Taker`."""
        sends = self.logic.on_message(peer, message, now)
        if self.tap is not None and not isinstance(message, ProtocolError):
            self.tap(peer, message, now)
        return sends

    def hear(self, peers: Set[bytes], merged: int, now: float) -> None:
        """See `Taker`."""
        self.logic.hear(peers, merged, now)

    def _act(self, sends: Iterable[Send]) -> None:
        site = self.site
        for send in sends:
            site.watch.scheduler_sent(send.message, site.network.now)
            if send.link == PRIMARY:
                site.network.send(self.name, SCHEDULER, self.name.encode(), send.message)
            else:
                site.network.send(self.name, send.peer.decode(), send.peer, send.message)
        while self.view.went_back:
            what = f"an older summary of {self.view.went_back.pop()} replaces a newer one"
            site.journal.breach(2, site.network.now, what)
        for slot, name in self.view.names.items():
            reserved, bound = self.view.view.reserved(slot), site.plan.config.agent.waiting_max
            site.journal.use("reservations", reserved, bound, site.network.now, name)
        self.settle(self.logic.next_timer(self.now))
