"""One NVIDIA GPU: measured power and energy, and its clock where this process may set it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, TypeVar

from festina.device import physics
from festina.device.base import Reading
from festina.device.nvidia.clocks import ClockSwitch, SwitchRules
from festina.device.nvidia.energy import CounterSplit
from festina.device.nvidia.nvml import Gpu
from festina.errors import DeviceError, DevicePermissionError, DeviceUnsupportedError
from festina.types import Health, Provenance, SmPartition

Fact = TypeVar("Fact")
Absent = TypeVar("Absent")

SAMPLE_S = 0.02
"""Sensors are read at most this often: they move slower, and a read is a system call."""

HEALTH_S = 1.0
"""Temperature and limits are read at most this often: they are for people."""

MEMORY_SHARE = 0.9
"""Share of the memory that nobody uses; contexts, libraries and workspaces take the rest."""

_KINDS = {
    "NVIDIA H100 80GB HBM3": "H100-SXM5-80GB",
    "NVIDIA A100-SXM4-80GB": "A100-SXM4-80GB",
    "NVIDIA A100-SXM4-40GB": "A100-SXM4-40GB",
    "NVIDIA H200": "H200-SXM5-141GB",
}


class ClockGuard(Protocol):
    """Gives the clock back if this process cannot (`festina.device.nvidia.watchdog`)."""

    def arm(self) -> None:
        """Be ready; called before every lock."""

    def release(self) -> None:
        """No longer needed."""

    def abandon(self) -> None:
        """Do it now, this process could not."""


class NvidiaDevice:
    """A GPU behind NVML (`Device` in festina/device/base.py). Not thread-safe.

    It owns the GPU's clock: opening resets it, which undoes what a killed predecessor left and
    shows whether this process may set clocks. If not, `clocks_mhz` is empty, which is what the
    agent tells the scheduler as it registers, and everything else works. Time is the `now` of the
    latest call that had one; a clock asked for is set at the next of those that the rules allow.

    Args:
        gpu: Its NVML side.
        partitions: SM ladder, whole device first (`festina.device.nvidia.ladder`).
        guard: Gives the clock back if this process is killed.
        now: When it is opened, in seconds of the clock that later calls use.
        rules: How often its clock may change.

    Attributes:
        clocks_why_none: Why clocks cannot be set; "" where they can.

    Raises:
        DeviceError: The GPU is lost, or has no energy counter.
    """

    def __init__(
        self,
        gpu: Gpu,
        partitions: tuple[SmPartition, ...],
        guard: ClockGuard,
        *,
        now: float,
        rules: SwitchRules | None = None,
    ) -> None:
        self.kind = kind_named(gpu.name())
        self.partitions = partitions
        self.sms_total = partitions[0].sms
        self.memory_bytes = int(MEMORY_SHARE * gpu.memory_free_bytes())
        self.power_cap_w = _told(gpu.power_limit_w, math.inf)
        self.clocks_mhz, self.clocks_why_none = _settable_clocks(gpu)
        supported_mhz = self.clocks_mhz or _told(gpu.supported_clocks_mhz, ())
        self._gpu = gpu
        self._guard = guard
        self._model = physics.GPUS.get(self.kind)
        self._closed = self._locked = self._parked = False
        self._now = self._sampled_at = now
        self._opened_j = gpu.energy_j()
        self._energy_j = 0.0
        self._power_w = gpu.power_w()
        self._clock_mhz = gpu.clock_mhz()
        self._split = CounterSplit(now, 0.0, self._power_w, self._floor_w())
        self._health = self._ask_health()
        self._health_at = now
        # An unlocked GPU under load runs as fast as it may.
        self._switch = ClockSwitch(max(supported_mhz, default=self._clock_mhz), now, rules)

    def advance(self, now: float) -> None:
        """Let time pass until `now`: read the sensors, set a clock that is due.

        Raises:
            DeviceError: The GPU is lost.
        """
        self._now = max(self._now, now)
        if self._now - self._sampled_at >= SAMPLE_S:
            self._sample()
        if self._now - self._health_at >= HEALTH_S:
            self._health, self._health_at = self._ask_health(), self._now
        self._set_due_clock()

    def clock_mhz(self) -> int:
        """SM clock at the latest sample; below 400 MHz where an unlocked GPU is idle."""
        return self._clock_mhz

    def run_clock_mhz(self) -> int:
        """The clock that is locked, or the highest, which an unlocked GPU takes under load."""
        return self._switch.present_mhz

    def health(self) -> Health:
        """Temperature and throttle reasons of the last second."""
        return self._health

    def set_clock_mhz(self, clock_mhz: int) -> None:
        """Ask for a clock: a higher one is set at once, a lower one after a dwell.

        Raises:
            DevicePermissionError: This process may not set clocks.
            DeviceError: Not one of `clocks_mhz`, or the GPU is lost.
        """
        if not self.clocks_mhz:
            raise DevicePermissionError(
                f"cannot set {clock_mhz} MHz: {self.clocks_why_none}",
                field="clock_mhz",
                expected="no call",
            )
        if clock_mhz not in self.clocks_mhz:
            raise DeviceError(
                f"{self.kind} has no clock of {clock_mhz} MHz",
                field="clock_mhz",
                expected=f"one of {self.clocks_mhz}",
            )
        self._switch.wish(clock_mhz)
        self._set_due_clock()

    def power_w(self, now: float) -> Reading:
        """Board power now."""
        self.advance(now)
        return Reading(self._power_w, Provenance.MEASURED)

    def energy_j(self, now: float) -> Reading:
        """The energy counter since the device was opened."""
        self.advance(now)
        return Reading(self._energy_j, Provenance.MEASURED)

    def account(self, now: float, busy_ms: float, flops: float, bytes_moved: float) -> float:
        """A step that ended at `now` is over; gives its joules above idle, by the counter."""
        busy_s = busy_ms / 1e3
        work = self._work(busy_s, flops, bytes_moved)
        # Before the sensors are read: a window that ends now has this step in it.
        energy_j = self._split.step(max(self._now, now), busy_s, work)
        self.advance(now)
        return energy_j

    def park(self, now: float) -> None:
        """The context is gone: the driver may let the clock sink as far as it goes."""
        self._parked = True
        if self._locked:
            self._gpu.reset_clock()
        self.advance(now)

    def wake(self, now: float) -> None:
        """A context comes: the clock is locked again where it was."""
        self._parked = False
        if self._locked:
            self._gpu.lock_clock(self._switch.present_mhz)
        self.advance(now)

    def close(self) -> None:
        """Give the clock back to the driver. Idempotent.

        Raises:
            DeviceError: The GPU is lost; the watchdog tries once more.
        """
        if self._closed:
            return
        self._closed = True
        if not self.clocks_mhz:
            return
        try:
            self._gpu.reset_clock()
        except DeviceError:
            self._guard.abandon()
            raise
        self._guard.release()

    def _sample(self) -> None:
        self._power_w = self._gpu.power_w()
        self._clock_mhz = self._gpu.clock_mhz()
        # A driver that is loaded anew counts from zero; what was used stays used.
        self._energy_j = max(self._energy_j, self._gpu.energy_j() - self._opened_j)
        self._split.read(self._now, self._energy_j, self._floor_w())
        self._sampled_at = self._now

    def _floor_w(self) -> float:
        """Modelled idle power at the present clock; 0 where the GPU is not known."""
        return 0.0 if self._model is None else float(physics.idle_w(self._model, self._clock_mhz))

    def _ask_health(self) -> Health:
        return Health(_told(self._gpu.temperature_c, None), _told(self._gpu.throttle_reasons, ()))

    def _set_due_clock(self) -> None:
        clock_mhz = None if self._parked else self._switch.due(self._now)
        if clock_mhz is None:
            return
        self._guard.arm()
        self._gpu.lock_clock(clock_mhz)
        self._locked = True
        self._switch.done(clock_mhz, self._now)

    def _work(self, busy_s: float, flops: float, bytes_moved: float) -> float:
        """Work of a step: joules as modelled where the GPU is known, else seconds."""
        if self._model is None or busy_s <= 0.0:
            return busy_s
        rates = flops / busy_s, bytes_moved / busy_s
        return float(physics.dynamic_w(self._model, *rates, self._clock_mhz)) * busy_s


def kind_named(name: str) -> str:
    """The kind under which profiles are filed, from NVML's name."""
    return _KINDS.get(name, name.removeprefix("NVIDIA ").replace(" ", "-"))


def _told(ask: Callable[[], Fact], absent: Absent) -> Fact | Absent:
    """What a sensor says, or `absent` where there is none."""
    try:
        return ask()
    except DeviceUnsupportedError:
        return absent


def _settable_clocks(gpu: Gpu) -> tuple[tuple[int, ...], str]:
    """Clocks that this process may set, or none and the reason."""
    try:
        gpu.reset_clock()
        return gpu.supported_clocks_mhz(), ""
    except (DevicePermissionError, DeviceUnsupportedError) as error:
        return (), error.message
