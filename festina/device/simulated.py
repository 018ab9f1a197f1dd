"""A GPU that is not there: SM ladder, clocks and power from the analytic GPU (DESIGN 4.5)."""

from __future__ import annotations

from dataclasses import dataclass

from festina.device import physics
from festina.device.base import Reading
from festina.device.meter import EnergyMeter
from festina.errors import DeviceError
from festina.types import Health, Provenance, SmPartition


@dataclass(frozen=True, slots=True)
class ClockSwitch:
    """A clock that has been asked for, and when it holds."""

    clock_mhz: int
    due: float


class SimulatedDevice:
    """One `sim:KIND` GPU (`Device` in festina/device/base.py). Not thread-safe.

    It has no clock of its own: time is the `now` of the latest call that had one. A clock that is
    asked for holds `clock_switch_ms` after that. Every reading is `modelled`.

    Args:
        gpu: Its kind.
        now: When it is opened, in seconds of the clock that later calls use.
    """

    def __init__(self, gpu: physics.GpuSpec, *, now: float) -> None:
        self.kind = gpu.kind
        self.sms_total = gpu.sms_total
        self.clocks_mhz = gpu.clocks_mhz
        self.partitions = tuple(
            SmPartition(rung=rung, sms=sms) for rung, sms in enumerate(reversed(gpu.sms_ladder))
        )
        self.memory_bytes = gpu.memory_bytes
        self.power_cap_w = gpu.power.cap_w
        self.gpu = gpu
        self._clock_mhz = gpu.clock_max_mhz
        self._switch: ClockSwitch | None = None
        self._parked = False
        self._meter = EnergyMeter(now, self._idle_w())

    @property
    def parked(self) -> bool:
        """The device holds no context."""
        return self._parked

    @property
    def clock_target_mhz(self) -> int:
        """The clock asked for, whether it holds yet or not."""
        return self._switch.clock_mhz if self._switch else self._clock_mhz

    def advance(self, now: float) -> None:
        """Let time pass until `now`; a clock switch that is due takes effect at its own time."""
        if self._switch is not None and self._switch.due <= now:
            switch, self._switch = self._switch, None
            self._clock_mhz = switch.clock_mhz
            self._meter.set_idle_w(switch.due, self._idle_w())
        self._meter.advance(now)

    def clock_mhz(self) -> int:
        """Clock at the latest time seen."""
        return self._clock_mhz

    def pending_switch(self) -> ClockSwitch | None:
        """The clock asked for, while it does not hold yet."""
        return self._switch

    def run_clock_mhz(self) -> int:
        """The same: it keeps its clock when it is idle."""
        return self._clock_mhz

    def health(self) -> Health:
        """It has no temperature; its power cap is in the latencies."""
        return Health()

    def set_clock_mhz(self, clock_mhz: int) -> None:
        """Ask for a clock; a later wish replaces one that does not hold yet.

        Raises:
            DeviceError: Not one of `clocks_mhz`.
        """
        if clock_mhz not in self.clocks_mhz:
            raise DeviceError(
                f"{self.kind} has no clock of {clock_mhz} MHz",
                field="clock_mhz",
                expected=f"one of {self.clocks_mhz}",
            )
        if clock_mhz == self.clock_target_mhz:
            return
        due = self._meter.now + self.gpu.clock_switch_ms / 1e3
        self._switch = ClockSwitch(clock_mhz, due)

    def park(self, now: float) -> None:
        """Destroy the context: idle power falls to that of the bare device."""
        self._set_parked(now, parked=True)

    def wake(self, now: float) -> None:
        """Create the context again; the caller waits `gpu.wake_ms` before it runs anything."""
        self._set_parked(now, parked=False)

    def power_w(self, now: float) -> Reading:
        """Mean power of the last second."""
        self.advance(now)
        return Reading(self._meter.power_w(now), Provenance.MODELLED)

    def energy_j(self, now: float) -> Reading:
        """Energy since the device was opened."""
        self.advance(now)
        return Reading(self._meter.energy_j(now), Provenance.MODELLED)

    def account(self, now: float, busy_ms: float, flops: float, bytes_moved: float) -> float:
        """A step that ended at `now` is over; gives its energy above idle, in joules.

        Power is clamped at the cap: where the cap binds, the step's latency already shows it.
        """
        self.advance(now)
        if busy_ms <= 0.0:
            return 0.0
        busy_s = busy_ms / 1e3
        rates = flops / busy_s, bytes_moved / busy_s
        dynamic_w = float(physics.dynamic_w(self.gpu, *rates, self._clock_mhz))
        headroom_w = self.gpu.power.cap_w - float(physics.idle_w(self.gpu, self._clock_mhz))
        energy_j = min(dynamic_w, headroom_w) * busy_s
        self._meter.spend(now, busy_s, energy_j)
        return energy_j

    def close(self) -> None:
        """Give the default clock back, at once."""
        self._switch = None
        self._clock_mhz = self.gpu.clock_max_mhz
        self._meter.set_idle_w(self._meter.now, self._idle_w())

    def _set_parked(self, now: float, *, parked: bool) -> None:
        self.advance(now)
        self._parked = parked
        self._meter.set_idle_w(now, self._idle_w())

    def _idle_w(self) -> float:
        if self._parked:
            return physics.parked_w(self.gpu)
        return float(physics.idle_w(self.gpu, self._clock_mhz))
