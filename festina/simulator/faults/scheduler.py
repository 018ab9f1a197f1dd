"""The scheduler as a process in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from festina.messages import AnyMessage
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.pair import PRIMARY, Pair
from festina.simulator.faults.plan import SCHEDULER, STANDBY
from festina.simulator.faults.process import Process, Site
from festina.simulator.faults.profiles import NamedView

Tap = Callable[[bytes, AnyMessage, float], None]


class SchedulerProcess(Process):
    """Starts empty, each time.

    Args:
        site: Where it runs.
        name: `SCHEDULER` or `STANDBY`.

    Attributes:
        tap: Hears what it hears.
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
        self.timer()

    @property
    def serves(self) -> bool:
        """Whether it is there and answers clients."""
        return self.alive and self.logic.active

    def receive(self, source: str, identity: bytes, message: AnyMessage) -> None:
        """See `Process`; all peers that come to it are alike to a scheduler."""
        peer = b"" if source == SCHEDULER else identity
        self._act(self.logic.on_message(peer, message, self.now))
        if self.tap is not None:
            self.tap(identity, message, self.now)

    def timer(self) -> None:
        """See `Process`."""
        self._act(self.logic.on_timer(self.now))

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
