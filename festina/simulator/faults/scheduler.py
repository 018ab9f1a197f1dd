"""The scheduler as a process in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from festina.messages import AnyMessage
from festina.runtime.protocol.effects import Send
from festina.simulator.faults.plan import SCHEDULER
from festina.simulator.faults.process import Process, Site
from festina.simulator.faults.profiles import NamedView

Tap = Callable[[bytes, AnyMessage, float], None]


class SchedulerProcess(Process):
    """Starts empty, each time.

    Attributes:
        tap: Hears what it hears.
    """

    def __init__(self, site: Site) -> None:
        super().__init__(site, SCHEDULER)
        self.tap: Tap | None = None
        self.view = NamedView(site.plan.config, site.profiles)
        self.logic = site.parts.scheduler(site.plan.config, self.view, next(site.epochs))
        self.timer()

    def receive(self, source: str, identity: bytes, message: AnyMessage) -> None:  # noqa: ARG002
        """See `Process`; all its peers are alike to a scheduler."""
        self._act(self.logic.on_message(identity, message, self.now))
        if self.tap is not None:
            self.tap(identity, message, self.now)

    def timer(self) -> None:
        """See `Process`."""
        self._act(self.logic.on_timer(self.now))

    def _act(self, sends: Iterable[Send]) -> None:
        site = self.site
        for send in sends:
            site.watch.scheduler_sent(send.message, site.network.now)
            site.network.send(self.name, send.peer.decode(), send.peer, send.message)
        while self.view.went_back:
            what = f"an older summary of {self.view.went_back.pop()} replaces a newer one"
            site.journal.breach(2, site.network.now, what)
        for slot, name in self.view.names.items():
            reserved, bound = self.view.view.reserved(slot), site.plan.config.agent.waiting_max
            site.journal.use("reservations", reserved, bound, site.network.now, name)
        self.settle(self.logic.next_timer(self.now))
