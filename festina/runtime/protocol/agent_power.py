"""Whether an agent's device is being emptied, and whether it holds a context (DESIGN 4.3)."""

from __future__ import annotations

import enum

from festina.runtime.protocol.agent_effects import ParkDevice, WakeDevice


class Power(enum.Enum):
    """Where the device's context is. In PARKING and WAKING the effect is under way."""

    AWAKE = "awake"
    PARKING = "parking"
    PARKED = "parked"
    WAKING = "waking"


class PowerState:
    """Drains, parks and wakes one device. Whatever needs the device wakes it, ordered or not.

    A drain is a lease: it ends by itself, and the wish to park ends with it, so that nobody who
    dies leaves a device out of use.

    Attributes:
        power: Where the context is.
        park_wanted: To be parked once the device holds no request.
    """

    def __init__(self) -> None:
        self.power = Power.AWAKE
        self.park_wanted = False
        self._drain_until = float("-inf")
        self._changed_at = 0.0
        self._wake_wanted = False

    def start(self, now: float) -> None:
        """The agent starts, with a context."""
        self._changed_at = now

    def draining(self, now: float) -> bool:
        """Whether nothing should be sent here."""
        return now < self._drain_until

    def settled_s(self, now: float) -> float:
        """Time since the device was last parked or woken, or the agent started."""
        return max(0.0, now - self._changed_at)

    @property
    def parked(self) -> bool:
        """The device holds no context, and nobody has asked for it yet."""
        return self.power is Power.PARKED

    @property
    def next_timer(self) -> float:
        """When the lease of a wish to park ends."""
        return self._drain_until if self.park_wanted else float("inf")

    def drain(self, lease_ms: int, now: float) -> None:
        """Take no new placements for so long; 0 ends that, and the wish to park."""
        self._drain_until = now + lease_ms / 1e3 if lease_ms else float("-inf")
        self.park_wanted = self.park_wanted and lease_ms > 0

    def park(self) -> None:
        """Park once empty."""
        self.park_wanted = self.power in (Power.AWAKE, Power.WAKING)
        self._wake_wanted = False

    def lapse(self, now: float) -> None:
        """A lease that has run out takes the wish to park along."""
        if now >= self._drain_until > float("-inf"):
            self.drain(0, now)

    def wake(self, now: float) -> list[WakeDevice]:
        """Something needs the device, or will: have its context again."""
        self.park_wanted = False
        if self.power is Power.PARKED:
            return self._wake(now)
        self._wake_wanted = self.power is Power.PARKING
        return []

    def begin_park(self) -> ParkDevice:
        """The device is empty."""
        self.park_wanted = False
        self.power = Power.PARKING
        return ParkDevice()

    def parked_now(self, now: float) -> list[WakeDevice]:
        """The context is gone; back at once if it has been asked for meanwhile."""
        self.power = Power.PARKED
        self._changed_at = now
        return self._wake(now) if self._wake_wanted else []

    def woken(self, now: float, *, failed: bool = False) -> None:
        """The context is back, or cannot be had: then the next one who needs it tries again."""
        self.power = Power.PARKED if failed else Power.AWAKE
        self._changed_at = now

    def _wake(self, now: float) -> list[WakeDevice]:
        self._wake_wanted = False
        self.power = Power.WAKING
        self._changed_at = now
        return [WakeDevice()]
