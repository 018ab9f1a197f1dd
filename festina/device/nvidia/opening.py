"""From a CUDA ordinal to an open device: the CUDA driver and NVML must mean the same GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from festina import _core
from festina.device.energy_window import EnergyWindow
from festina.device.nvidia.device import NvidiaDevice
from festina.device.nvidia.driver_errors import typed
from festina.device.nvidia.ladder import SMS_APART, SmLadder, ladder_sms
from festina.device.nvidia.nvml import Gpu, Nvml
from festina.device.nvidia.watchdog import Watchdog
from festina.errors import DeviceError
from festina.types import SmPartition

STREAMS = 2
"""Of each partition: one for steps, and one for copies of KV blocks."""

BARE_S = 5.0
LOOK_S = 0.02
STILL_S = 10.0
"""A counter that has not moved for so long does not count."""


def cuda_device_count() -> int:
    """GPUs that CUDA shows this process.

    Raises:
        DeviceError: There is no driver, or it is too old.
    """
    with typed("gpus"):
        return int(_core.CudaDriver().device_count())


def open_ladder(ordinal: int, apart: int = SMS_APART, streams: int = STREAMS) -> SmLadder:
    """Makes the SM partitions of the GPU that CUDA calls `ordinal`, for the process that asks.

    Call it in the process that runs the models, before the engine makes its pools and graphs: the
    partitions belong to its primary context, and work gets in by their streams.

    Args:
        ordinal: From 0, among those that CUDA shows this process.
        apart: SMs from one rung to the next, as far as the driver's granularity allows.
        streams: Of each partition.

    Raises:
        DeviceError: No driver, no such GPU, or one that cannot be partitioned.
    """
    with typed("gpus"):
        driver = _core.CudaDriver()
        # What partitions there can be is known to the driver alone, and it tells by making some.
        whole = _core.GreenContexts(driver, ordinal, [])
        sms = ladder_sms(whole.sms_total, *whole.granularity, apart)
        return SmLadder(_core.GreenContexts(driver, ordinal, sms, streams=streams))


def bare_power_w(ordinal: int, clock: Callable[[], float], sleep: Callable[[float], None]) -> float:
    """Power of a GPU on which this process has no context yet, by its counter, over some seconds.

    Raises:
        DeviceError: No driver, no such GPU, or a counter that stands still.
    """
    with typed("gpus"):
        uuid = _core.CudaDriver().device_uuid(ordinal)
    with Nvml() as nvml:
        return counted_power_w(nvml.gpu(uuid), BARE_S, clock, sleep)


def counted_power_w(
    gpu: Gpu, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> float:
    """Mean power by the counter over at least so many seconds, whatever runs meanwhile.

    Raises:
        DeviceError: The GPU is lost, or its counter stands still.
    """
    window, start = EnergyWindow(), clock()
    while window.length_s < seconds:
        sleep(LOOK_S)
        window.look(clock(), gpu.energy_j())
        if window.length_s == 0.0 and clock() - start > seconds + STILL_S:
            raise DeviceError("the energy counter stands still", field="energy_j")
    return window.mean_w


def hold_device(ordinal: int, now: float, partitions: tuple[SmPartition, ...] = ()) -> NvidiaDevice:
    """The GPU that CUDA calls `ordinal`. NVML counts otherwise, so it is found by identity.

    The caller closes it. NVML stays open in this process, as its handles must.

    Args:
        ordinal: From 0, among those that CUDA shows this process.
        now: Seconds.
        partitions: Of its ladder (`open_ladder`); empty takes the device whole.

    Raises:
        DeviceError: No driver, no such GPU, or NVML does not know it.
    """
    with typed("gpus"):
        driver = _core.CudaDriver()
        uuid = driver.device_uuid(ordinal)
        whole = (SmPartition(rung=0, sms=driver.sm_count(ordinal)),)
    return NvidiaDevice(Nvml().gpu(uuid), partitions or whole, Watchdog(uuid), now=now)


@contextmanager
def open_device(
    ordinal: int, now: float, partitions: tuple[SmPartition, ...] = ()
) -> Iterator[NvidiaDevice]:
    """As `hold_device`, until the block ends.

    Raises:
        DeviceError: As `hold_device`.
    """
    device = hold_device(ordinal, now, partitions)
    try:
        yield device
    finally:
        device.close()
