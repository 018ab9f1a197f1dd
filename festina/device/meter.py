"""The energy of a modelled device: idle power over time plus the joules of finished steps."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW_S = 1.0
"""Power is a mean over this long, as NVML's is on Ampere and later."""


@dataclass(frozen=True, slots=True)
class _Step:
    start: float
    end: float
    energy_j: float

    def since(self, start: float) -> float:
        """Joules of the part that lies after `start`."""
        if self.start >= start:
            return self.energy_j
        return self.energy_j * (self.end - start) / (self.end - self.start)


class EnergyMeter:
    """Adds idle power over time to the dynamic energy of steps. Not thread-safe.

    Energy is exact: idle power integrated over the time that has passed, plus every joule given to
    `spend`. Power is that of the last `WINDOW_S` seconds. Time never runs backwards: an earlier
    `now` counts as the latest one seen.

    Args:
        now: When the device was opened, in seconds.
        idle_w: Idle power at that time.
    """

    def __init__(self, now: float, idle_w: float) -> None:
        self._opened = now
        self._now = now
        self._idle_w = idle_w
        self._idle_j = 0.0
        self._dynamic_j = 0.0
        self._steps: deque[_Step] = deque()

    @property
    def now(self) -> float:
        """The latest time seen."""
        return self._now

    def advance(self, now: float) -> None:
        """Let idle power run until `now`."""
        if now > self._now:
            self._idle_j += self._idle_w * (now - self._now)
            self._now = now
        while self._steps and self._steps[0].end <= self._now - WINDOW_S:
            self._steps.popleft()

    def set_idle_w(self, now: float, idle_w: float) -> None:
        """Idle power is `idle_w` from `now` on."""
        self.advance(now)
        self._idle_w = idle_w

    def spend(self, now: float, busy_s: float, energy_j: float) -> None:
        """A step that ended at `now` took `energy_j` above idle, evenly over `busy_s`."""
        self.advance(now)
        self._dynamic_j += energy_j
        self._steps.append(_Step(self._now - busy_s, self._now, energy_j))

    def energy_j(self, now: float) -> float:
        """Joules since the device was opened."""
        self.advance(now)
        return self._idle_j + self._dynamic_j

    def power_w(self, now: float) -> float:
        """Idle power now plus the mean dynamic power of the window."""
        self.advance(now)
        start = max(self._opened, self._now - WINDOW_S)
        window_s = self._now - start
        if window_s <= 0.0:
            return self._idle_w
        return self._idle_w + sum(step.since(start) for step in self._steps) / window_s
