"""What a device is: sensors and actuators of one GPU, or of a CPU that stands in for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from festina.types import Health, Provenance, SmPartition


@dataclass(frozen=True, slots=True)
class Reading:
    """A sensor value with how it came about."""

    value: float
    source: Provenance


class Device(Protocol):
    """One device. Not thread-safe; owned by one agent, which must `close` it.

    Attributes:
        kind: Name under which profiles are filed, such as "cpu" or "H100-SXM5-80GB".
        sms_total: SMs; 1 for a CPU core.
        clocks_mhz: Clocks that can be set, ascending; empty where none can.
        partitions: SM ladder, whole device first. The two halves of a rung share no SM.
        memory_bytes: Memory for weights and KV cache.
        power_cap_w: Power limit; infinite where there is none.
    """

    kind: str
    sms_total: int
    clocks_mhz: tuple[int, ...]
    partitions: tuple[SmPartition, ...]
    memory_bytes: int
    power_cap_w: float

    def clock_mhz(self) -> int:
        """Clock now; 0 where it cannot be read."""

    def run_clock_mhz(self) -> int:
        """Clock that a step runs at which starts now: an idle GPU shows a lower one. 0: none."""

    def set_clock_mhz(self, clock_mhz: int) -> None:
        """Ask for a clock of `clocks_mhz`.

        Raises:
            DeviceError: Not one of `clocks_mhz`.
            DevicePermissionError: This process may not set clocks.
        """

    def power_w(self, now: float) -> Reading:
        """Power now, in watts."""

    def health(self) -> Health:
        """Temperature and limits, as lately seen."""

    def energy_j(self, now: float) -> Reading:
        """Energy since the device was opened, in joules; never decreases."""

    def account(self, now: float, busy_ms: float, flops: float, bytes_moved: float) -> float:
        """Tell the device of a finished step; gives its dynamic energy in joules.

        Modelled devices integrate it; measured ones use it to split what the sensor says.
        """

    def park(self, now: float) -> None:
        """The engine has given the device's context up; modelled devices draw less from now on."""

    def wake(self, now: float) -> None:
        """The engine begins to take the context again."""

    def close(self) -> None:
        """Give clocks and partitions back to their defaults. Idempotent."""
