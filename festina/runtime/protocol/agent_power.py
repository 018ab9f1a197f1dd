"""Whether an agent's device is being emptied, and whether it holds a context (DESIGN 4.3)."""

from __future__ import annotations

import enum

from festina.device.base import Device
from festina.runtime.protocol.agent_account import WakeTally
from festina.runtime.protocol.agent_effects import ParkDevice, WakeDevice


class Power(enum.Enum):
    """Where the device's context is. In PARKING and WAKING the effect is under way.

    LOST: it went by itself and what was resident with it, or it could not be taken.
    """

    AWAKE = "awake"
    PARKING = "parking"
    PARKED = "parked"
    WAKING = "waking"
    LOST = "lost"


class PowerState:
    """Drains, parks and wakes one device. Whatever needs the device wakes it, ordered or not.

    A drain is a lease: it ends by itself, and the wish to park ends with it, so that nobody who
    dies leaves a device out of use.

    Args:
        device: Told when its context goes and comes.

    Attributes:
        power: Where the context is.
        park_wanted: To be parked once the device holds no request.
        wakes: How long wakes from a park took.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.power = Power.AWAKE
        self.park_wanted = False
        self._drain_until = float("-inf")
        self._changed_at = 0.0
        self._waking_since = 0.0
        self._wake_s = 0.0
        self._from_parked = False
        self.wakes = WakeTally()

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
        leased = self.park_wanted and self._drain_until > float("-inf")
        return self._drain_until if leased else float("inf")

    def drain(self, lease_ms: int, now: float) -> None:
        """Take no new placements for so long; 0 ends that, and the wish to park."""
        self._drain_until = now + lease_ms / 1e3 if lease_ms else float("-inf")
        self.park_wanted = self.park_wanted and lease_ms > 0

    def park(self) -> None:
        """Park once empty."""
        self.park_wanted = self.power in (Power.AWAKE, Power.WAKING)

    def lapse(self, now: float) -> None:
        """A lease that has run out takes the wish to park along."""
        if now >= self._drain_until > float("-inf"):
            self.drain(0, now)

    def wake(self, now: float) -> list[WakeDevice]:
        """Something needs the device, or will: have its context again, after a park under way."""
        self.park_wanted = False
        if self.power not in (Power.PARKED, Power.PARKING):
            return []
        self._changed_at = now
        self._from_parked = True
        return [self._wake(now)]

    def begin_park(self) -> ParkDevice:
        """The device is empty."""
        self.park_wanted = False
        self.power = Power.PARKING
        return ParkDevice()

    def parked_now(self, now: float) -> None:
        """The context is gone; perhaps it has been asked for again meanwhile."""
        if self.power is Power.PARKING:
            self.power = Power.PARKED
            self._changed_at = now
            self._device.park(now)

    def woken(self, now: float) -> None:
        """The context is there, and nothing in it."""
        self.power = Power.AWAKE
        self._wake_s = now - self._waking_since
        if self._from_parked:
            self._from_parked = False
            self.wakes.add(self._wake_s)

    def lose(self) -> None:
        """The context is gone, or cannot be had."""
        self.power = Power.LOST
        self._from_parked = False

    def retry(self, now: float) -> WakeDevice:
        """Take a new context for one that is lost."""
        return self._wake(now)

    def wake_left_ms(self, now: float) -> float:
        """How long until a context that is being taken is there, as far as the last time tells."""
        if self.power is not Power.WAKING:
            return 0.0
        return max(0.0, self._waking_since + self._wake_s - now) * 1e3

    def _wake(self, now: float) -> WakeDevice:
        self.power = Power.WAKING
        self._waking_since = now
        self._device.wake(now)
        return WakeDevice()
