"""Which GPUs a scheduler leaves alone: those that are emptied, and those that have just parked.

All of it comes back from summaries within a heartbeat, but for what was ordered since the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

from festina.errors import NeededError
from festina.messages import Drain, Load, Order, Park
from festina.types import GpuSummary


class Closures:
    """GPUs by slot. A closed one is used only if all others would be late, or cannot.

    Args:
        dwell_s: How long a GPU should stay parked.
        heartbeat_s: How long a word of an agent or to it counts.
    """

    def __init__(self, dwell_s: float, heartbeat_s: float) -> None:
        self._dwell_s = dwell_s
        self._heartbeat_s = heartbeat_s
        self._draining: dict[int, float] = {}
        self._parked: dict[int, float] = {}
        self._plans: dict[int, int] = {}
        self._ended: dict[int, tuple[int, float]] = {}

    @property
    def any(self) -> bool:
        """Whether some GPU is closed."""
        return bool(self._draining or self._parked)

    def to_avoid(self) -> Iterator[Set[int]]:
        """Sets of slots to leave out, one after the other until a place is found.

        A GPU that has just parked is woken only for a request that would otherwise be refused: it
        would wake and park over and over.
        """
        draining, parked = self._draining.keys(), self._parked.keys()
        if draining:
            yield draining | parked
        yield set(parked)

    def told(self, slot: int, summary: GpuSummary, now: float) -> None:
        """An agent tells of its GPU."""
        _, ended_at = self._ended.get(slot, (0, float("-inf")))
        if summary.draining and now - ended_at >= self._heartbeat_s:
            until = now + self._heartbeat_s
            self._draining[slot] = max(until, self._draining.get(slot, until))
        elif not summary.draining and slot not in self._plans:
            self._draining.pop(slot, None)
        if summary.parked and summary.settled_s < self._dwell_s:
            self._parked[slot] = now + self._dwell_s - summary.settled_s
        else:
            self._parked.pop(slot, None)

    def ordered(self, slot: int, plan: int, order: Order, now: float) -> None:
        """The consolidator asks for something.

        Raises:
            NeededError: The GPU has been given work since the plan began to empty it.
        """
        if not isinstance(order, Drain | Park):
            return
        if plan <= self._ended.get(slot, (0, 0.0))[0]:
            raise NeededError(
                f"plan {plan} has ended: the GPU is needed", field="plan", expected="another plan"
            )
        if isinstance(order, Drain) and order.lease_ms == 0:
            self._plans.pop(slot, None)
            self._draining.pop(slot, None)
        elif isinstance(order, Drain):
            self._plans[slot] = plan
            self._draining[slot] = now + order.lease_ms / 1e3

    def needed(self, slot: int, now: float) -> list[Order | Load]:
        """A request goes there after all; returns what to tell the agent before."""
        if slot not in self._draining:
            return []
        del self._draining[slot]
        self._ended[slot] = (self._plans.pop(slot, 0), now)
        return [Drain(0)]

    def expire(self, now: float) -> None:
        """Forget what has run out."""
        for table in (self._draining, self._parked):
            for slot in [slot for slot, until in table.items() if until <= now]:
                del table[slot]
        for slot in self._plans.keys() - self._draining.keys():
            del self._plans[slot]

    def forget(self, slot: int) -> None:
        """The GPU is gone; another one may get its slot."""
        for table in (self._draining, self._parked, self._plans, self._ended):
            table.pop(slot, None)
