"""Copies of KV blocks that touch a GPU: within it, to and from the host, to another, to a process.

Ways: within a device a kernel, with a bounded number of blocks and on the caller's stream, so that
it can be kept to a partition of its own; to and from pinned host memory the kernel for small runs
and the copy engines for large ones, from the device's `Crossover` on; to another device its copy
engines. Memory of another process (`CudaKvMemories.map_shared`) is device memory like any other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from festina import _core
from festina.device.nvidia.driver_errors import typed
from festina.engine.kv_copy import Bytes, KvMemory, Place, Runs
from festina.engine.kv_crossover import KERNEL_ONLY, Crossover, kept_or_calibrated
from festina.engine.kv_memory_cuda import CudaKvMemories
from festina.errors import EngineError

_ENGINE_ONLY = 0


class CudaKvCopy:
    """`KvCopy` with a GPU on one side or both, in the order of one stream.

    Not thread-safe. Wait for copies before memories, stream or this go.

    Attributes:
        memory: Makes and maps memories that it can copy.

    Args:
        driver: The driver.
        ordinal: CUDA ordinal of the device.
        stream: CUstream of that device, not the legacy default one.
        blocks_max: Thread blocks (256 threads) that the kernel may have at once, ≥ 1.
        crossover: Which way host copies go.
        copier: Made for that device; None makes one.

    Raises:
        DeviceUnsupportedError: A driver before CUDA 13.0.
        DeviceError: The device refused, or this is a build without CUDA.
    """

    def __init__(
        self,
        driver: _core.CudaDriver,
        ordinal: int,
        stream: int,
        *,
        blocks_max: int,
        crossover: Crossover,
        copier: _core.KvCopier | None = None,
    ) -> None:
        with typed("kv_copy"):
            self._copier = copier or _core.KvCopier(driver, ordinal)
        self._ordinal = ordinal
        self._stream = stream
        self._blocks_max = blocks_max
        self._crossover = crossover
        self._staging: KvMemory | None = None
        self.memory = CudaKvMemories(driver, ordinal, self._copier)

    @classmethod
    def open(
        cls,
        driver: _core.CudaDriver,
        ordinal: int,
        stream: int,
        folder: Path,
        *,
        blocks_max: int | None = None,
        copier: _core.KvCopier | None = None,
    ) -> CudaKvCopy:
        """A copier that knows its device's crossover, from `folder` or measured now.

        Args:
            driver: The driver.
            ordinal: CUDA ordinal of the device.
            stream: CUstream of that device.
            folder: Where results are kept.
            blocks_max: Thread blocks for the kernel; None takes two for each SM.
            copier: Made for that device; None makes one.

        Raises:
            DeviceError: The device refused.
            ConfigError: The folder cannot be written.
        """
        with typed("kv_copy"):
            copier = copier or _core.KvCopier(driver, ordinal)
            blocks_max = blocks_max or 2 * driver.sm_count(ordinal)
        crossover = kept_or_calibrated(folder, driver, ordinal, copier, stream, blocks_max)
        return cls(
            driver, ordinal, stream, blocks_max=blocks_max, crossover=crossover, copier=copier
        )

    def copy(self, src: KvMemory, dst: KvMemory, runs: Runs) -> None:
        """Start a copy after all that this stream has been given.

        Raises:
            IndexError: Names a run outside its memory; then nothing is copied.
            EngineError: A side is pageable, or none is on this device.
            StreamCapturedError: It needs the copy engines and the stream is being captured.
            DeviceLostError: The context is unusable from now on.
            DeviceError: The device refused.
        """
        engine_min = self._engine_min(src, dst)
        with typed("kv_copy"):
            self._copier.copy(
                (src.address, src.size_bytes),
                (dst.address, dst.size_bytes),
                runs,
                self._stream,
                self._blocks_max,
                engine_min,
            )

    def wait(self) -> None:
        """Return when all that this stream has been given is done.

        Raises:
            DeviceLostError: A copy failed, and the context with it.
            DeviceError: The device refused.
        """
        with typed("kv_copy"):
            self._copier.wait(self._stream)

    def done(self) -> bool:
        """Whether all that this stream has been given is done.

        Raises:
            DeviceLostError: A copy failed, and the context with it.
            DeviceError: The device refused.
        """
        with typed("kv_copy"):
            return self._copier.done(self._stream)

    def to_host(self, src: KvMemory, runs: Runs, size_bytes: int) -> Bytes:
        """Copy into a new array by way of pinned memory, and wait for it."""
        if size_bytes == 0:
            return np.empty(0, np.uint8)
        staging = self._staging_of(size_bytes)
        self.copy(src, staging, runs)
        self.wait()
        return staging.array()[:size_bytes].copy()

    def from_host(self, data: Bytes, dst: KvMemory, runs: Runs) -> None:
        """Copy out of an array by way of pinned memory, and wait for it."""
        if data.size == 0:
            return
        staging = self._staging_of(data.size)
        staging.array()[: data.size] = data
        self.copy(staging, dst, runs)
        self.wait()

    def _engine_min(self, src: KvMemory, dst: KvMemory) -> int:
        """From which size on runs go by copy engine; opens the way to another device."""
        devices = {memory.device for memory in (src, dst) if memory.device is not None}
        if Place.HOST in (src.place, dst.place) or self._ordinal not in devices:
            raise EngineError(
                f"a copy from {src.place.value} to {dst.place.value} memory",
                field="memory",
                expected=f"device {self._ordinal} on one side, a device or pinned on the other",
            )
        if src.place is Place.PINNED:
            return self._crossover.to_device_bytes
        if dst.place is Place.PINNED:
            return self._crossover.to_host_bytes
        for device in devices - {self._ordinal}:
            with typed("memory"):
                self._copier.enable_peer(device)
            return _ENGINE_ONLY
        return KERNEL_ONLY

    def _staging_of(self, size_bytes: int) -> KvMemory:
        """Pinned memory of at least `size_bytes`; grows, since pinning is slow."""
        if self._staging is None or self._staging.size_bytes < size_bytes:
            self._staging = None
            self._staging = self.memory.pinned(2 ** (size_bytes - 1).bit_length())
        return self._staging
