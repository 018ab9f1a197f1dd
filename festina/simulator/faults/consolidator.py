"""The consolidator as a process in virtual time."""

from __future__ import annotations

from collections.abc import Iterable

from festina.messages import AnyMessage
from festina.runtime.consolidator import build_planner
from festina.runtime.protocol.effects import Send
from festina.simulator.faults.plan import CONSOLIDATOR, SCHEDULER, STANDBY
from festina.simulator.faults.process import Process, Site


class ConsolidatorProcess(Process):
    """Starts with nothing known, each time.

    Attributes:
        logic: What is under test.
    """

    def __init__(self, site: Site) -> None:
        super().__init__(site, CONSOLIDATOR)
        planner = build_planner(site.plan.config, {site.profiles.device: site.profiles.table})
        self.logic = site.parts.consolidator(site.plan.config, planner, next(site.epochs) * 1000)
        self.timer()

    def receive(self, source: str, identity: bytes, message: AnyMessage) -> None:  # noqa: ARG002
        """See `Process`; schedulers are all that it talks to."""
        self._act(self.logic.on_message(message, self.now))

    def timer(self) -> None:
        """See `Process`."""
        self._act(self.logic.on_timer(self.now))

    def _act(self, sends: Iterable[Send]) -> None:
        site = self.site
        for send in sends:
            for scheduler in (SCHEDULER, STANDBY) if site.plan.standby else (SCHEDULER,):
                site.network.send(self.name, scheduler, self.name.encode(), send.message)
        for event in self.logic.take_events():
            site.journal.note(site.network.now, f"{event.kind} {event.agent} {event.why}")
            site.journal.did[f"{event.kind} by plan"] += 1
        self.settle(self.logic.next_timer(self.now))
