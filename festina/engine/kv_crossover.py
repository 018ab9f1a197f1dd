"""From which size on a device's copy engines beat its copy kernel, to and from pinned memory.

Copy engines need about half a microsecond for each run, however small; a kernel does not, but it
takes SMs and reaches less of the bus's bandwidth. Where the two meet depends on the machine, so it
is timed on it, once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from festina import _core
from festina.device.nvidia.driver_errors import typed
from festina.errors import ConfigError

SIZES_BYTES = tuple(2**exponent for exponent in range(12, 21))
"""Sizes of runs that are timed: 4 KiB to 1 MiB."""

KERNEL_ONLY = 2**63
"""A `engine_min` that no run reaches."""

_TIMED_BYTES = 2**23
_REPEATS = 3


class CrossoverPoint(msgspec.Struct, frozen=True):
    """Both ways at one size of runs, measured.

    Attributes:
        run_bytes: Bytes of each run.
        kernel_gb_per_s: Bandwidth of the kernel.
        engine_gb_per_s: Bandwidth of the copy engines.
    """

    run_bytes: int
    kernel_gb_per_s: float
    engine_gb_per_s: float


class Crossover(msgspec.Struct, frozen=True):
    """Which way host copies of a device go.

    Attributes:
        device: Identity of the device.
        driver: Version of its driver.
        blocks_max: Blocks that the kernel was allowed.
        to_device_bytes: Runs into device memory go by copy engine from this size on.
        to_host_bytes: Runs out of it do from this size on.
        to_device: What was measured into device memory, by size.
        to_host: What was measured out of it, by size.
    """

    device: str
    driver: int
    blocks_max: int
    to_device_bytes: int
    to_host_bytes: int
    to_device: tuple[CrossoverPoint, ...]
    to_host: tuple[CrossoverPoint, ...]


def calibrate(
    driver: _core.CudaDriver,
    ordinal: int,
    copier: _core.KvCopier,
    stream: int,
    blocks_max: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Crossover:
    """Time both ways at every size; takes well under a second and 32 MiB on either side.

    Args:
        driver: The driver.
        ordinal: The device of `copier`.
        copier: Copies.
        stream: CUstream to copy on; nothing else should run on the device meanwhile.
        blocks_max: Blocks that the kernel may have.
        clock: Monotonic seconds.

    Raises:
        DeviceError: The device refused.
    """
    with typed("kv_copy"):
        host = copier.allocate_pinned(2 * _TIMED_BYTES)
        device = copier.allocate(2 * _TIMED_BYTES)
        timing = _Timing(copier, stream, blocks_max, clock)
        to_device = tuple(timing.point(host, device, size) for size in SIZES_BYTES)
        to_host = tuple(timing.point(device, host, size) for size in SIZES_BYTES)
        return Crossover(
            driver.device_uuid(ordinal),
            driver.version,
            blocks_max,
            crossing_bytes(to_device),
            crossing_bytes(to_host),
            to_device,
            to_host,
        )


def crossing_bytes(points: tuple[CrossoverPoint, ...]) -> int:
    """The size from which on the engines were never slower; twice the largest if they always were.

    Args:
        points: At least one, by ascending size.
    """
    crossing = 2 * points[-1].run_bytes
    for point in reversed(points):
        if point.engine_gb_per_s < point.kernel_gb_per_s:
            break
        crossing = point.run_bytes
    return crossing


def kept_or_calibrated(
    folder: Path,
    driver: _core.CudaDriver,
    ordinal: int,
    copier: _core.KvCopier,
    stream: int,
    blocks_max: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Crossover:
    """The result for this device, driver and `blocks_max` that `folder` keeps; else a new one.

    A file that cannot be read as a result is measured anew and replaced. Arguments are those of
    `calibrate`.

    Raises:
        DeviceError: The device refused.
        ConfigError: The folder cannot be read or written.
    """
    with typed("kv_copy"):
        path = folder / f"kv-copy-{driver.device_uuid(ordinal)}.json"
    try:
        kept = _read(path)
        if kept is not None and (kept.driver, kept.blocks_max) == (driver.version, blocks_max):
            return kept
        measured = calibrate(driver, ordinal, copier, stream, blocks_max, clock)
        _keep(path, measured)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be kept: {error}",
            field="XDG_CACHE_HOME",
            expected="a folder that can be written",
        ) from error
    return measured


def _keep(path: Path, measured: Crossover) -> None:
    made = path.with_suffix(f".{os.getpid()}")  # other processes may measure the same device
    path.parent.mkdir(parents=True, exist_ok=True)
    made.write_bytes(msgspec.json.format(msgspec.json.encode(measured)))
    made.replace(path)


def _read(path: Path) -> Crossover | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Crossover)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


class _Timing:
    """Times copies of `_TIMED_BYTES` in runs that nothing can merge."""

    def __init__(
        self,
        copier: _core.KvCopier,
        stream: int,
        blocks_max: int,
        clock: Callable[[], float],
    ) -> None:
        self._copier = copier
        self._stream = stream
        self._blocks_max = blocks_max
        self._clock = clock

    def point(self, src: _core.CudaMemory, dst: _core.CudaMemory, run_bytes: int) -> CrossoverPoint:
        count = _TIMED_BYTES // run_bytes
        starts = np.arange(count, dtype=np.uint64) * np.uint64(2 * run_bytes)
        sizes = np.full(count, run_bytes, np.uint64)
        runs = np.stack((starts, starts, sizes), axis=1)
        kernel_s, engine_s = (
            min(self._seconds(src, dst, runs, engine_min) for _ in range(_REPEATS))
            for engine_min in (KERNEL_ONLY, 0)
        )
        return CrossoverPoint(
            run_bytes, _TIMED_BYTES / kernel_s / 1e9, _TIMED_BYTES / engine_s / 1e9
        )

    def _seconds(
        self,
        src: _core.CudaMemory,
        dst: _core.CudaMemory,
        runs: np.ndarray[tuple[int, ...], np.dtype[np.uint64]],
        engine_min: int,
    ) -> float:
        start = self._clock()
        self._copier.copy(
            (src.address, src.size),
            (dst.address, dst.size),
            runs,
            self._stream,
            self._blocks_max,
            engine_min,
        )
        self._copier.wait(self._stream)
        return self._clock() - start
