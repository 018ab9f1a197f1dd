"""Memory of a GPU for copies of KV blocks: made here, pinned, shared with other processes, mapped.

Two ways to share: CUDA's IPC handles, a few bytes on any channel, for memory of cudaMalloc's kind;
and file descriptors, over a Unix socket, for memory made for it.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

import msgspec
import numpy as np
from numpy.typing import NDArray

from festina import _core
from festina.device.nvidia.driver_errors import typed
from festina.engine.kv_copy import KvMemory
from festina.errors import DeviceError, EngineError


class SharedKvMemory(msgspec.Struct, frozen=True):
    """Device memory as another process on this host can map it, while its owner keeps it.

    Attributes:
        device: Identity of its device.
        handle: CUDA's handle of the allocation it lies in.
        allocation_bytes: Bytes of that allocation.
        offset: Where it starts there.
        size_bytes: Its bytes.
    """

    device: str
    handle: bytes
    allocation_bytes: int
    offset: int
    size_bytes: int


class CudaKvMemories:
    """Makes and maps memory on one device. Each is given back when nobody holds it any more.

    Wait for copies first. Not thread-safe.

    Args:
        driver: The driver.
        ordinal: CUDA ordinal of the device.
        copier: Made for that device.
    """

    def __init__(self, driver: _core.CudaDriver, ordinal: int, copier: _core.KvCopier) -> None:
        self._driver = driver
        self._ordinal = ordinal
        self._copier = copier
        self._mapped: WeakValueDictionary[bytes, _core.CudaMemory] = WeakValueDictionary()

    def allocate(self, size_bytes: int) -> KvMemory:
        """New memory of the device, the kind that `share` can share.

        Raises:
            DeviceError: It does not fit.
        """
        with typed("size_bytes"):
            return self._on_device(self._copier.allocate(size_bytes))

    def exportable(self, size_bytes: int) -> KvMemory:
        """New memory of the device, rounded up, the kind that `export_fd` can share.

        Raises:
            DeviceError: It does not fit.
        """
        with typed("size_bytes"):
            return self._on_device(self._copier.create(size_bytes))

    def pinned(self, size_bytes: int) -> KvMemory:
        """New host memory that devices reach.

        Raises:
            DeviceError: It does not fit.
        """
        with typed("size_bytes"):
            return KvMemory.of_pinned(self._copier.allocate_pinned(size_bytes))

    def pin(self, array: NDArray[np.uint8]) -> KvMemory:
        """Let devices reach an array that exists, in memory shared between processes, say.

        Raises:
            DeviceError: The driver cannot pin it.
        """
        with typed("array"):
            return KvMemory.of_pinned(self._copier.pin(array))

    def share(self, memory: KvMemory) -> SharedKvMemory:
        """How another process on this host maps device memory, of `allocate` or PyTorch's.

        Raises:
            DeviceError: It is not of cudaMalloc's kind (PyTorch's expandable segments are not).
        """
        with typed("memory"):
            handle, offset, allocation_bytes = self._copier.share(memory.address)
            device = self._driver.device_uuid(self._ordinal)
        return SharedKvMemory(device, handle, allocation_bytes, offset, memory.size_bytes)

    def map_shared(self, shared: SharedKvMemory) -> KvMemory:
        """Map what another process shares; an allocation that is mapped already stays mapped once.

        Raises:
            DeviceError: Its owner is gone, or this process does not see its device.
        """
        with typed("shared"):
            ordinal = self._ordinal_of(shared.device)
            base = self._mapped.get(shared.handle)
            if base is None:
                base = self._copier.open_shared(shared.handle, shared.allocation_bytes)
                self._mapped[shared.handle] = base
        address = base.address + shared.offset
        return KvMemory.of_device(address, shared.size_bytes, ordinal, base)

    def export_fd(self, memory: KvMemory) -> int:
        """A descriptor for another process (`socket.send_fds`), the caller's to close.

        Raises:
            EngineError: It is not memory of `exportable`.
            DeviceError: The driver cannot export it.
        """
        if not isinstance(memory.owner, _core.CudaMemory):
            raise EngineError(
                "memory of another kind", field="memory", expected="one of exportable"
            )
        with typed("memory"):
            return memory.owner.export_fd()

    def map_fd(self, fd: int, size_bytes: int) -> KvMemory:
        """Map what another process exported; `fd` stays the caller's.

        Args:
            fd: The descriptor.
            size_bytes: `size_bytes` of the memory on the other side.

        Raises:
            DeviceError: The driver cannot import it.
        """
        with typed("fd"):
            return self._on_device(self._copier.import_fd(fd, size_bytes))

    def _on_device(self, memory: _core.CudaMemory) -> KvMemory:
        return KvMemory.of_device(memory.address, memory.size, self._ordinal, memory)

    def _ordinal_of(self, device: str) -> int:
        for ordinal in range(self._driver.device_count()):
            if self._driver.device_uuid(ordinal) == device:
                return ordinal
        raise DeviceError(
            f"{device} holds it", field="shared", expected="a device that this process sees"
        )
