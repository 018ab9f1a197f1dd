"""The mean power of work that is repeated, from a counter that moves now and then."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Edge:
    now: float
    energy_j: float
    busy_s: float


class EnergyWindow:
    """A stretch of time between two moves of an energy counter.

    NVML's counter moves about every 100 ms and says nothing in between. A window that begins and
    ends at a move is exact but for the time between two looks, at both ends alike. Not thread-safe.
    """

    def __init__(self) -> None:
        self._seen_j: float | None = None
        self._first: _Edge | None = None
        self._last: _Edge | None = None
        self._busy_s = 0.0

    @property
    def length_s(self) -> float:
        """Between the first move seen and the last."""
        return (
            0.0 if self._first is None or self._last is None else self._last.now - self._first.now
        )

    @property
    def mean_w(self) -> float:
        """Mean power; 0 without two moves."""
        if self._first is None or self._last is None or self.length_s <= 0.0:
            return 0.0
        return (self._last.energy_j - self._first.energy_j) / self.length_s

    @property
    def covered(self) -> float:
        """Share of the window that was work."""
        if self._first is None or self._last is None or self.length_s <= 0.0:
            return 0.0
        return min(1.0, (self._last.busy_s - self._first.busy_s) / self.length_s)

    def look(self, now: float, energy_j: float, busy_s: float = 0.0) -> None:
        """The counter was read.

        Args:
            now: Seconds.
            energy_j: What it shows.
            busy_s: Work since the last look.
        """
        self._busy_s += busy_s
        moved = self._seen_j is not None and energy_j != self._seen_j
        self._seen_j = energy_j
        if moved:
            self._last = _Edge(now, energy_j, self._busy_s)
            self._first = self._first or self._last
