"""What lower clocks save, as the profile has it: beside the highest clock, the driver's default.

A step at the highest clock takes less time at more power; the rest of the time the device would
idle at that clock. Both ways are figures of the profile, so the difference is modelled even where
the power of the device is measured.
"""

from __future__ import annotations

from festina.control.profile import ProfileTable
from festina.control.profiled import ProfiledStepTime, nearest_clock_mhz
from festina.control.step_time import StepTime, StepWork
from festina.types import OperatingPoint


class ClockSavings:
    """Adds up joules of one device. Without a profile they are 0.

    Attributes:
        saved_j: Until now; it falls where the profile says that a lower clock costs.
    """

    def __init__(self) -> None:
        self.saved_j = 0.0
        self._table: ProfileTable | None = None
        self._now: float | None = None
        self._state: tuple[int, ProfileTable | None] = (0, None)
        self._idle_saved_w = 0.0

    def advance(self, now: float, clock_mhz: int, *, awake: bool) -> None:
        """Time has passed until `now`, from which on the device has this clock.

        Args:
            now: Seconds, never decreasing.
            clock_mhz: Of a step that starts now; 0 where there is none.
            awake: It holds a context; a parked device has no clock worth the name.
        """
        if self._now is not None:
            self.saved_j += self._idle_saved_w * (now - self._now)
        self._now = now
        state = clock_mhz if awake else 0, self._table
        if state != self._state:  # it is asked with each message, and clocks change seldom
            self._state = state
            self._idle_saved_w = _idle_saved_w(*state)

    def step(self, step_time: StepTime, work: StepWork, point: OperatingPoint) -> None:
        """A step is over that ran there. Its idle power is part of `advance`."""
        if not isinstance(step_time, ProfiledStepTime) or not point.clock_mhz:
            return
        table = self._table = step_time.table
        clock = table.clocks_mhz.index(nearest_clock_mhz(table, point.clock_mhz))
        if clock == len(table.clocks_mhz) - 1:
            return
        latency_ms, power_w = step_time.at_all_clocks(work, point.sms)
        energy_j = latency_ms * power_w / 1e3
        self.saved_j += float(energy_j[-1] - energy_j[clock])


def _idle_saved_w(clock_mhz: int, table: ProfileTable | None) -> float:
    """Watts that an idle device draws less than at its highest clock."""
    if table is None or not clock_mhz:
        return 0.0
    clock = nearest_clock_mhz(table, clock_mhz)
    return table.idle_w(table.clocks_mhz[-1]) - table.idle_w(clock)
