"""From a CUDA ordinal to an open device: the CUDA driver and NVML must mean the same GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from festina import _core
from festina.device.nvidia.device import NvidiaDevice
from festina.device.nvidia.nvml import Nvml
from festina.device.nvidia.watchdog import Watchdog
from festina.errors import DeviceError
from festina.types import SmPartition


@contextmanager
def _typed() -> Iterator[None]:
    try:
        yield
    except _core.CudaDriverError as error:
        raise DeviceError(str(error), field="gpus") from error


def cuda_device_count() -> int:
    """GPUs that CUDA shows this process.

    Raises:
        DeviceError: There is no driver, or it is too old.
    """
    with _typed():
        return int(_core.CudaDriver().device_count())


@contextmanager
def open_device(ordinal: int, now: float) -> Iterator[NvidiaDevice]:
    """The GPU that CUDA calls `ordinal`, whole. NVML counts otherwise, so it is found by identity.

    Args:
        ordinal: From 0, among those that CUDA shows this process.
        now: Seconds.

    Raises:
        DeviceError: No driver, no such GPU, or NVML does not know it.
    """
    with _typed():
        driver = _core.CudaDriver()
        uuid = driver.device_uuid(ordinal)
        partitions = (SmPartition(rung=0, sms=driver.sm_count(ordinal)),)
    with Nvml() as nvml:
        device = NvidiaDevice(nvml.gpu(uuid), partitions, Watchdog(uuid), now=now)
        try:
            yield device
        finally:
            device.close()
