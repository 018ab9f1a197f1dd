"""Virtual time, and links that lose, delay, repeat, reorder, cut and overflow."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from festina.messages import AnyMessage, decode, encode
from festina.simulator.faults.journal import Journal
from festina.simulator.faults.plan import DELAY_S_MAX, STORM_S, Cut, Plan, Weather

LATENCY_S = 0.0002
"""Of a link without faults, at least."""

EVENTS_MAX = 2_000_000
"""Of a run; a timer that is due again and again without end is a wait without a bound."""


class Receiver(Protocol):
    """A process as the network knows it."""

    def arrive(self, source: str, identity: bytes, message: AnyMessage) -> None:
        """A message has come over the link of that identity."""


class Stuck(Exception):  # noqa: N818 - says what happened
    """Virtual time does not pass: too many events."""


class Network:
    """Carries frames between named processes; keeps the order of a link unless told otherwise.

    Args:
        plan: What goes wrong.
        journal: Takes notes.

    Attributes:
        now: Virtual seconds.
        processes: Who is there, by name.
    """

    def __init__(self, plan: Plan, journal: Journal) -> None:
        self.now = 0.0
        self.processes: dict[str, Receiver] = {}
        self._plan = plan
        self._journal = journal
        self._queue_max = plan.config.link.queue_max
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._links: dict[tuple[str, str], _Link] = {}

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do something at that time; what is due at the same time keeps its order."""
        self._count += 1
        heapq.heappush(self._events, (max(time, self.now), self._count, action))

    def run(self, until: float) -> None:
        """Let time pass.

        Raises:
            Stuck: More than `EVENTS_MAX` events.
        """
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
            if self._count > EVENTS_MAX:
                raise Stuck
        self.now = until

    def send(self, source: str, target: str, identity: bytes, message: AnyMessage) -> bool:
        """Put a message on a link.

        Returns:
            Whether there was room for it; what becomes of it then is not told.
        """
        link = self._links.get((source, target))
        if link is None:
            link = self._links[source, target] = _Link(self._plan, source, target)
        if link.in_flight[identity] >= self._queue_max:
            self._journal.fault(self.now, "overflow", f"{source} {target}")
            return False
        frame = encode(message)
        for arrival in link.arrivals(self.now, self._journal):
            link.in_flight[identity] += 1
            self.at(arrival, lambda: self._deliver(link, identity, frame))
        return True

    def _deliver(self, link: _Link, identity: bytes, frame: bytes) -> None:
        link.in_flight[identity] -= 1
        process = self.processes.get(link.target)
        if process is not None:
            self._journal.note(self.now, f"{link.source} {link.target} {identity!r}", frame)
            process.arrive(link.source, identity, decode(frame))


class _Link:
    """One direction between two processes, with its own share of the weather."""

    def __init__(self, plan: Plan, source: str, target: str) -> None:
        self.source, self.target = source, target
        self.in_flight: Counter[bytes] = Counter()
        self._rng = random.Random(f"link/{plan.seed}/{source}/{target}")
        share = self._rng.choice((0.0, 0.5, 1.0, 2.0))
        self._weather = Weather(
            plan.weather.loss * share,
            plan.weather.repeat * share,
            plan.weather.reorder * share,
            plan.weather.delay_s,
        )
        self._cuts = tuple(cut for cut in plan.cuts if _is_cut(cut, source, target))
        self._last = 0.0

    def arrivals(self, now: float, journal: Journal) -> list[float]:
        """When a message sent now arrives; as often as it does."""
        where = f"{self.source} {self.target}"
        if now >= STORM_S:
            return [self._in_order(now + LATENCY_S * (1.0 + self._rng.random()))]
        cut = next((cut for cut in self._cuts if cut.start <= now < cut.end), None)
        if cut is not None and not cut.held:
            journal.fault(now, "cut", where)
            return []
        if self._rng.random() < self._weather.loss:
            journal.fault(now, "lost", where)
            return []
        copies = 1
        if self._rng.random() < self._weather.repeat:
            journal.fault(now, "repeated", where)
            copies = 2
        start = now
        if cut is not None:
            journal.fault(now, "held", where)
            start = cut.end
        return [self._arrival(start, journal, where) for _ in range(copies)]

    def _arrival(self, start: float, journal: Journal, where: str) -> float:
        late_s = min(self._rng.expovariate(1.0) * self._weather.delay_s, DELAY_S_MAX)
        if self._rng.random() < self._weather.reorder:
            journal.fault(start, "reordered", where)
            return start + LATENCY_S + self._rng.uniform(late_s, min(late_s + 0.5, DELAY_S_MAX))
        if late_s > 0.01:  # what a network without faults would not do
            journal.fault(start, "delayed", where)
        return self._in_order(start + LATENCY_S + late_s)

    def _in_order(self, arrival: float) -> float:
        self._last = max(arrival, self._last)
        return self._last


def _is_cut(cut: Cut, source: str, target: str) -> bool:
    if cut.others and not {source, target} & cut.others:
        return False
    if source in cut.names:
        return target not in cut.names
    return target in cut.names and not cut.one_way
