"""What part of a GPU's energy counter is due to steps, which are shorter than its period."""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_S = 0.5
"""The counter moves about every 100 ms: over this long, its edges are a fifth of the energy."""


@dataclass(frozen=True, slots=True)
class _Quiet:
    end: float
    above_w: float


class CounterSplit:
    """Learns from the counter how many joules above idle a unit of work takes.

    A step ends every few milliseconds, the counter moves every hundred. So a step is charged by its
    work at the rate of the last window: (its energy − idle power · its length) / work done in it.
    What this misses, the ledger spreads as static energy, so that the sum over requests is
    the counter's in any case (DESIGN 4.4). Idle power depends on the clock, and a GPU idles at
    another clock than it works at: what the last window showed in which nothing ran, above a floor
    that is modelled for its clock, counts above the floor of other clocks. Not thread-safe.

    Args:
        now: Seconds.
        energy_j: The counter now.
        idle_w: Idle power, until a quiet window has shown it.
        floor_w: Modelled idle power at the clock of that moment.
    """

    def __init__(self, now: float, energy_j: float, idle_w: float, floor_w: float = 0.0) -> None:
        self._floor_w = floor_w
        self._above_w = idle_w - floor_w
        self._rate = 1.0
        self._start, self._start_j = now, energy_j
        self._last_j = energy_j
        self._work = 0.0
        self._quiet: _Quiet | None = None

    @property
    def idle_w(self) -> float:
        """Idle power at the clock of the last reading."""
        return max(0.0, self._floor_w + self._above_w)

    def step(self, now: float, busy_s: float, work: float) -> float:
        """A step ended at `now`; gives its joules above idle.

        Args:
            now: Seconds.
            busy_s: How long it took.
            work: Its work, in a unit that suits comparing steps: modelled joules, or seconds.
        """
        if self._quiet is not None:
            # A window without an end of a step may still have been in the middle of this one.
            if now - busy_s >= self._quiet.end:
                self._above_w = self._quiet.above_w
            self._quiet = None
        inside = min(1.0, (now - self._start) / busy_s) if busy_s > 0.0 else 1.0
        self._work += work * inside
        return self._rate * work

    def read(self, now: float, energy_j: float, floor_w: float = 0.0) -> None:
        """The counter was read. Windows end when it moves: between moves it tells nothing.

        Args:
            now: Seconds.
            energy_j: What it shows.
            floor_w: Modelled idle power at the present clock; 0 where it is not known.
        """
        self._floor_w = floor_w
        if energy_j == self._last_j:
            return
        self._last_j = energy_j
        window_s = now - self._start
        if window_s < WINDOW_S:
            return
        window_j = energy_j - self._start_j
        if self._work > 0.0:
            self._rate = max(0.0, window_j - self.idle_w * window_s) / self._work
        else:
            self._quiet = _Quiet(now, window_j / window_s - floor_w)
        self._start, self._start_j, self._work = now, energy_j, 0.0
