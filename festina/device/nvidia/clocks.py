"""When a wish for a clock becomes a call to the driver: coalesced, rate-limited, slow to fall."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SwitchRules:
    """Bounds on switches.

    Attributes:
        gap_s: Least time between two calls: one takes milliseconds and stalls its caller.
        dwell_s: Least time from a call to one that lowers the clock.
    """

    gap_s: float = 0.02
    dwell_s: float = 0.5


class ClockSwitch:
    """The clock in force and the one wished for. The latest wish wins; earlier ones are forgotten.

    Args:
        clock_mhz: Clock in force: what an unlocked device runs at under load.
        now: Seconds.
        rules: Bounds.
    """

    def __init__(self, clock_mhz: int, now: float, rules: SwitchRules | None = None) -> None:
        self._rules = rules or SwitchRules()
        self._present_mhz = clock_mhz
        self._wish_mhz = clock_mhz
        self._changed_at = now - self._rules.gap_s  # the first rise need not wait

    @property
    def present_mhz(self) -> int:
        """The clock in force."""
        return self._present_mhz

    def wish(self, clock_mhz: int) -> None:
        """Ask for a clock."""
        self._wish_mhz = clock_mhz

    def due(self, now: float) -> int | None:
        """The clock to set now; None where nothing is to be done yet."""
        if self._wish_mhz == self._present_mhz:
            return None
        rises = self._wish_mhz > self._present_mhz
        wait_s = self._rules.gap_s if rises else self._rules.dwell_s
        return self._wish_mhz if now - self._changed_at >= wait_s else None

    def done(self, clock_mhz: int, now: float) -> None:
        """The driver has been told."""
        self._present_mhz = clock_mhz
        self._changed_at = now
