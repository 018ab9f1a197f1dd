"""One CPU core that stands in for a GPU. Its power is modelled and says so."""

from __future__ import annotations

import math
import os

from festina.config import CpuPowerConfig
from festina.device.base import Reading
from festina.device.meter import EnergyMeter
from festina.errors import DeviceError
from festina.types import Health, Provenance, SmPartition

MEMORY_SHARE = 0.5
"""Share of the machine's memory that a device offers unless told otherwise."""


class CpuDevice:
    """A CPU core as a device with one SM and no clock to set (`Device` in festina/device/base.py).

    Power is idle (less while parked) + active while a step runs + energy per FLOP and per byte. The
    parameters are settings, not measurements: every reading is `modelled`. Not thread-safe.

    Args:
        power: Parameters of the power model.
        now: When it is opened, in seconds of the clock that later calls use.
        memory_bytes: Memory for weights and KV cache; 0 takes a share of the machine's.
    """

    kind = "cpu"
    sms_total = 1
    clocks_mhz: tuple[int, ...] = ()
    power_cap_w = math.inf
    partitions: tuple[SmPartition, ...] = (SmPartition(rung=0, sms=1),)

    def __init__(self, power: CpuPowerConfig, *, now: float, memory_bytes: int = 0) -> None:
        self.memory_bytes = memory_bytes or int(MEMORY_SHARE * machine_memory_bytes())
        self._power = power
        self._meter = EnergyMeter(now, power.idle_w)

    def clock_mhz(self) -> int:
        """Always 0: a CPU core's clock is its governor's affair."""
        return 0

    def run_clock_mhz(self) -> int:
        """Always 0."""
        return 0

    def health(self) -> Health:
        """Nothing is known of it."""
        return Health()

    def set_clock_mhz(self, clock_mhz: int) -> None:
        """Never possible.

        Raises:
            DeviceError: Always.
        """
        raise DeviceError(
            f"a CPU's clock cannot be set to {clock_mhz} MHz", field="clock_mhz", expected="no call"
        )

    def power_w(self, now: float) -> Reading:
        """Mean power of the last second."""
        return Reading(self._meter.power_w(now), Provenance.MODELLED)

    def energy_j(self, now: float) -> Reading:
        """Energy since the device was opened."""
        return Reading(self._meter.energy_j(now), Provenance.MODELLED)

    def account(self, now: float, busy_ms: float, flops: float, bytes_moved: float) -> float:
        """A step that ended at `now` is over; gives its energy above idle, in joules."""
        energy_j = cpu_step_j(self._power, busy_ms, flops, bytes_moved)
        self._meter.spend(now, busy_ms / 1e3, energy_j)
        return energy_j

    def park(self, now: float) -> None:
        """No engine is there: idle power falls to that of a parked core."""
        self._meter.set_idle_w(now, self._power.parked_w)

    def wake(self, now: float) -> None:
        """The engine starts again."""
        self._meter.set_idle_w(now, self._power.idle_w)

    def close(self) -> None:
        """Nothing to give back."""


def cpu_step_j(power: CpuPowerConfig, busy_ms: float, flops: float, bytes_moved: float) -> float:
    """Energy of a step above idle, in joules."""
    work_pj = power.pj_per_flop * flops + power.pj_per_byte * bytes_moved
    return power.active_w * busy_ms / 1e3 + 1e-12 * work_pj


def machine_memory_bytes() -> int:
    """Physical memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
