"""A process in virtual time: its clock, its inbox, its timer, and how it freezes and crashes."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from festina.messages import AnyMessage
from festina.runtime.protocol.agent import AgentLogic
from festina.runtime.protocol.client import ClientLogic
from festina.runtime.protocol.consolidator import ConsolidatorLogic
from festina.runtime.protocol.scheduler import SchedulerLogic
from festina.simulator.faults.journal import Journal
from festina.simulator.faults.kv import Memory
from festina.simulator.faults.network import LATENCY_S, Network
from festina.simulator.faults.plan import Plan
from festina.simulator.faults.profiles import Profiles
from festina.simulator.faults.watch import Watch

EPOCH_STEP = 1000
"""Epochs are microseconds of a start: more tickets lie between than a scheduler gives out."""

TIMER_S_MIN = 1e-4
"""A timer that is due at once waits that long, as a loop has to come round."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What is under test; the checks themselves are tested with parts that are wrong."""

    scheduler: type[SchedulerLogic] = SchedulerLogic
    agent: type[AgentLogic] = AgentLogic
    client: type[ClientLogic] = ClientLogic
    consolidator: type[ConsolidatorLogic] = ConsolidatorLogic


@dataclass(frozen=True, slots=True)
class Site:
    """What all processes of a run share.

    Attributes:
        plan: What goes wrong.
        network: Time and links.
        journal: Takes notes.
        watch: Looks at every message and event.
        profiles: Of the devices.
        parts: The logic of processes.
        epochs: A larger one for every process that starts.
        memory: What agents share.
    """

    plan: Plan
    network: Network
    journal: Journal
    watch: Watch
    profiles: Profiles
    parts: Parts
    epochs: Iterator[int] = field(default_factory=lambda: itertools.count(1, EPOCH_STEP))
    memory: Memory = field(default_factory=dict)


class Process(ABC):
    """One process under a name that may have been another's before.

    Args:
        site: Where it runs.
        name: Its name.

    Attributes:
        alive: Whether it has not crashed.
    """

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.name = name
        self.alive = True
        self._clock_s = site.plan.clock_s[name]
        self._frozen = False
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake_at = float("inf")
        site.network.processes[name] = self

    @property
    def now(self) -> float:
        """Seconds on its own clock."""
        return self.site.network.now + self._clock_s

    def crash(self) -> None:
        """It is gone, with all it knew."""
        self.alive = False
        del self.site.network.processes[self.name]

    def freeze(self, for_s: float) -> None:
        """It does nothing for a while, as if stopped by a signal; messages wait, timers pass."""
        self._frozen = True
        self.site.network.at(self.site.network.now + for_s, self._thaw)

    def arrive(self, source: str, identity: bytes, message: AnyMessage) -> None:
        """A message has come over the link of that identity."""
        if self._frozen and len(self._inbox) >= self.site.plan.config.link.queue_max:
            self.site.journal.fault(self.site.network.now, "overflow", self.name)
            return
        self.soon(lambda: self.receive(source, identity, message))

    def closed(self, identity: bytes) -> None:  # noqa: B027 - only agents learn of it
        """The other end of a link has been closed."""

    def soon(self, action: Callable[[], None]) -> None:
        """Do it now, or when it is no longer frozen; never if it crashes before."""
        if not self.alive:
            return
        if self._frozen:
            self._inbox.append(action)
        else:
            action()

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do it after a while, if it lives then."""
        self.site.network.at(self.site.network.now + delay_s, lambda: self.soon(action))

    def settle(self, due: float | None) -> None:
        """Have `timer` called when its logic wants it, on its own clock."""
        if due is None or due == float("inf"):
            return
        at = max(due - self._clock_s, self.site.network.now + TIMER_S_MIN)
        if at < self._wake_at:
            self._wake_at = at
            self.site.network.at(at, lambda: self._wake(at))

    def tell_closed(self, source: str, identity: bytes) -> None:
        """Let the sender know that this end of the link is closed."""
        sender = self.site.network.processes.get(source)
        if isinstance(sender, Process):
            sender.later(LATENCY_S, lambda: sender.closed(identity))

    @abstractmethod
    def receive(self, source: str, identity: bytes, message: AnyMessage) -> None:
        """Give a message to the logic."""

    @abstractmethod
    def timer(self) -> None:
        """Tell the logic that time has passed."""

    def _wake(self, at: float) -> None:
        if at != self._wake_at:
            return
        self._wake_at = float("inf")
        if self.alive and not self._frozen:
            self.timer()

    def _thaw(self) -> None:
        """Shells read their links before they look at timers."""
        if not self.alive:
            return
        self._frozen = False
        while self._inbox:
            self._inbox.popleft()()
        self.timer()
