"""The seam to NVML: what festina asks of one GPU, and pynvml behind it.

Sensors, as measured by others on Ampere and Hopper: `power_w` is instant where the driver has the
field for it, else a mean of the last second; the energy counter moves about every 100 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

import pynvml

from festina.errors import (
    DeviceError,
    DeviceLostError,
    DevicePermissionError,
    DeviceUnsupportedError,
)

THROTTLE_REASONS = {
    0x001: "idle",
    0x002: "clock setting",
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "thermal, software",
    0x040: "thermal, hardware",
    0x080: "power brake",
    0x100: "display setting",
}
"""Bits of nvmlClocksEventReasons (nvml.h)."""

_LOST = {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED}
"""After these nothing that runs on the GPU goes on, until somebody resets it."""

_UNSUPPORTED = {pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_NOT_SUPPORTED}


class Gpu(Protocol):
    """One GPU. Not thread-safe.

    All methods raise `DeviceUnsupportedError` where GPU or driver lack the function,
    `DevicePermissionError` where this process may not use it, `DeviceLostError` for a GPU that has
    fallen off the bus, and `DeviceError` otherwise.
    """

    def uuid(self) -> str:
        """Its identity, "GPU-…"."""

    def name(self) -> str:
        """Its name, such as "NVIDIA H100 80GB HBM3"."""

    def memory_bytes(self) -> int:
        """All of its memory."""

    def memory_free_bytes(self) -> int:
        """What nobody uses now."""

    def power_w(self) -> float:
        """Board power now, in watts."""

    def power_limit_w(self) -> float:
        """The cap in force, in watts."""

    def energy_j(self) -> float:
        """Joules since the driver was loaded; moves about every 100 ms."""

    def clock_mhz(self) -> int:
        """SM clock now."""

    def temperature_c(self) -> int:
        """Temperature of the chip, in °C."""

    def throttle_reasons(self) -> tuple[str, ...]:
        """Why the clock is not higher: values of `THROTTLE_REASONS`."""

    def supported_clocks_mhz(self) -> tuple[int, ...]:
        """SM clocks at the highest memory clock, ascending."""

    def lock_clock(self, clock_mhz: int) -> None:
        """Hold the SM clock at one value, for the whole device and all its users."""

    def reset_clock(self) -> None:
        """Give the SM clock back to the driver."""


@contextmanager
def _typed(call: str) -> Iterator[None]:
    """NVML's errors as festina's; `call` is the function that was called."""
    try:
        yield
    except pynvml.NVMLError as error:
        status = error.value  # type: ignore[attr-defined] # set by its __new__
        kind = DeviceError
        if status == pynvml.NVML_ERROR_NO_PERMISSION:
            kind = DevicePermissionError
        elif status in _LOST:
            kind = DeviceLostError
        elif status in _UNSUPPORTED:
            kind = DeviceUnsupportedError
        raise kind(f"{call}: {error}", field="nvml") from error


class PynvmlGpu:
    """`Gpu` by pynvml. Its `Nvml` must be open.

    Args:
        handle: NVML's handle.
    """

    def __init__(self, handle: object) -> None:
        self._handle = handle

    def uuid(self) -> str:
        """See `Gpu`."""
        with _typed("nvmlDeviceGetUUID"):
            return str(pynvml.nvmlDeviceGetUUID(self._handle))

    def name(self) -> str:
        """See `Gpu`."""
        with _typed("nvmlDeviceGetName"):
            return str(pynvml.nvmlDeviceGetName(self._handle))

    def memory_bytes(self) -> int:
        """See `Gpu`."""
        with _typed("nvmlDeviceGetMemoryInfo"):
            return int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).total)

    def memory_free_bytes(self) -> int:
        """See `Gpu`."""
        with _typed("nvmlDeviceGetMemoryInfo"):
            return int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).free)

    def power_w(self) -> float:
        """See `Gpu`."""
        with _typed("nvmlDeviceGetFieldValues"):
            field = pynvml.NVML_FI_DEV_POWER_INSTANT
            (found,) = pynvml.nvmlDeviceGetFieldValues(self._handle, [field])
            if found.nvmlReturn == pynvml.NVML_SUCCESS:
                return int(found.value.uiVal) / 1e3
            if found.nvmlReturn not in {*_UNSUPPORTED, pynvml.NVML_ERROR_INVALID_ARGUMENT}:
                raise pynvml.NVMLError(found.nvmlReturn)
        with _typed("nvmlDeviceGetPowerUsage"):  # drivers before 530 know no instant power
            return int(pynvml.nvmlDeviceGetPowerUsage(self._handle)) / 1e3

    def power_limit_w(self) -> float:
        """See `Gpu`."""
        with _typed("nvmlDeviceGetEnforcedPowerLimit"):
            return int(pynvml.nvmlDeviceGetEnforcedPowerLimit(self._handle)) / 1e3

    def energy_j(self) -> float:
        """See `Gpu`."""
        with _typed("nvmlDeviceGetTotalEnergyConsumption"):
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3

    def clock_mhz(self) -> int:
        """See `Gpu`."""
        with _typed("nvmlDeviceGetClockInfo"):
            return int(pynvml.nvmlDeviceGetClockInfo(self._handle, pynvml.NVML_CLOCK_SM))

    def temperature_c(self) -> int:
        """See `Gpu`."""
        with _typed("nvmlDeviceGetTemperature"):
            return int(pynvml.nvmlDeviceGetTemperature(self._handle, pynvml.NVML_TEMPERATURE_GPU))

    def throttle_reasons(self) -> tuple[str, ...]:
        """See `Gpu`."""
        with _typed("nvmlDeviceGetCurrentClocksThrottleReasons"):  # the name all drivers have
            bits = int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))
        return tuple(text for bit, text in THROTTLE_REASONS.items() if bits & bit)

    def supported_clocks_mhz(self) -> tuple[int, ...]:
        """See `Gpu`."""
        with _typed("nvmlDeviceGetSupportedMemoryClocks"):
            memory_mhz = max(pynvml.nvmlDeviceGetSupportedMemoryClocks(self._handle))
        with _typed("nvmlDeviceGetSupportedGraphicsClocks"):
            clocks = pynvml.nvmlDeviceGetSupportedGraphicsClocks(self._handle, memory_mhz)
        return tuple(sorted(int(clock) for clock in clocks))

    def lock_clock(self, clock_mhz: int) -> None:
        """See `Gpu`."""
        with _typed("nvmlDeviceSetGpuLockedClocks"):
            pynvml.nvmlDeviceSetGpuLockedClocks(self._handle, clock_mhz, clock_mhz)

    def reset_clock(self) -> None:
        """See `Gpu`."""
        with _typed("nvmlDeviceResetGpuLockedClocks"):
            pynvml.nvmlDeviceResetGpuLockedClocks(self._handle)


class Nvml:
    """NVML, open until `close`. NVML counts its users: several may be open in one process.

    Raises:
        DeviceError: No NVIDIA driver.
    """

    def __init__(self) -> None:
        with _typed("nvmlInit"):
            pynvml.nvmlInit()

    def driver_version(self) -> str:
        """Such as "580.95.05"."""
        with _typed("nvmlSystemGetDriverVersion"):
            return str(pynvml.nvmlSystemGetDriverVersion())

    def gpus(self) -> tuple[PynvmlGpu, ...]:
        """All GPUs of this machine, in NVML's order, which need not be CUDA's."""
        with _typed("nvmlDeviceGetHandleByIndex"):
            count = int(pynvml.nvmlDeviceGetCount())
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        return tuple(PynvmlGpu(handle) for handle in handles)

    def gpu(self, uuid: str) -> PynvmlGpu:
        """The GPU of this identity.

        Raises:
            DeviceError: There is none.
        """
        with _typed(f"nvmlDeviceGetHandleByUUID({uuid})"):
            return PynvmlGpu(pynvml.nvmlDeviceGetHandleByUUID(uuid.encode()))

    def close(self) -> None:
        """Handles are void from now on."""
        with _typed("nvmlShutdown"):
            pynvml.nvmlShutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
