"""Copies of KV blocks: one interface for host memory and for GPUs.

A copy takes runs of bytes from one `KvMemory` to another. `HostKvCopy` does it on the calling
thread; `festina.engine.kv_copy_cuda.CudaKvCopy` gives it to a stream. Either way runs that continue
each other on both sides are merged first, so tables need not be clever; within a GPU only those
that follow one another in the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from festina import _core
from festina.engine.kv_layout import KvLayout, runs_between
from festina.errors import EngineError

Bytes = NDArray[np.uint8]
Runs = NDArray[np.uint64]


class Place(Enum):
    """Where memory is."""

    HOST = "host"
    PINNED = "pinned"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class KvMemory:
    """A stretch of memory that copies start from or end in.

    Attributes:
        address: Of its first byte: the process's own, or CUDA's, which contains it.
        size_bytes: Its bytes.
        place: Where it is.
        device: CUDA ordinal of its device; None on the host.
        owner: Keeps it alive; on the host a buffer of exactly these bytes.
    """

    address: int
    size_bytes: int
    place: Place
    device: int | None
    owner: object

    @classmethod
    def of_array(cls, array: NDArray[np.generic]) -> KvMemory:
        """All bytes of a contiguous array.

        Raises:
            ValueError: Its bytes do not follow one another.
        """
        if not array.flags.c_contiguous:
            raise ValueError("an array with gaps: expected a contiguous one")
        flat = array.reshape(-1).view(np.uint8)
        return cls(flat.ctypes.data, flat.nbytes, Place.HOST, None, flat)

    @classmethod
    def of_device(cls, address: int, size_bytes: int, device: int, owner: object) -> KvMemory:
        """Memory of a GPU that `owner` keeps alive: of a PyTorch tensor, say.

        Args:
            address: Of its first byte.
            size_bytes: Its bytes.
            device: CUDA ordinal of its device.
            owner: Kept.
        """
        return cls(address, size_bytes, Place.DEVICE, device, owner)

    @classmethod
    def of_pinned(cls, memory: _core.CudaMemory) -> KvMemory:
        """Pinned host memory."""
        return cls(memory.address, memory.size, Place.PINNED, None, memory)

    def array(self) -> Bytes:
        """Its bytes, uint8 (size_bytes,), not a copy.

        Raises:
            EngineError: It is not on the host.
        """
        if self.place is Place.DEVICE:
            raise EngineError("memory of a device", field="memory", expected="host memory")
        if isinstance(self.owner, np.ndarray):
            return self.owner
        return np.frombuffer(self.owner, np.uint8)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True, slots=True)
class BlockPool:
    """Blocks in memory.

    Attributes:
        memory: Where they are.
        layout: How they lie there.

    Raises:
        ValueError: The layout is larger than the memory.
    """

    memory: KvMemory
    layout: KvLayout

    def __post_init__(self) -> None:
        if self.layout.size_bytes > self.memory.size_bytes:
            raise ValueError(
                f"blocks over {self.layout.size_bytes} bytes: expected at most "
                f"{self.memory.size_bytes}"
            )


class KvCopy(Protocol):
    """Copies runs of bytes. Not thread-safe; one for each thread or stream that copies."""

    def copy(self, src: KvMemory, dst: KvMemory, runs: Runs) -> None:
        """Start a copy after all that were started before; neither side may change until `wait`.

        Args:
            src: Where from.
            dst: Where to; runs must not overlap there.
            runs: uint64 (n, 3) of (src_offset, dst_offset, size), multiples of 16 bytes.

        Raises:
            IndexError: Names a run outside its memory; then nothing is copied.
            EngineError: This copier does not reach both sides.
            DeviceError: A device refused.
        """

    def wait(self) -> None:
        """Return when all copies are done.

        Raises:
            DeviceError: One of them failed.
        """

    def done(self) -> bool:
        """Whether all copies are done.

        Raises:
            DeviceError: One of them failed.
        """

    def to_host(self, src: KvMemory, runs: Runs, size_bytes: int) -> Bytes:
        """Copy into a new array, uint8 (size_bytes,), and wait for it."""

    def from_host(self, data: Bytes, dst: KvMemory, runs: Runs) -> None:
        """Copy out of a contiguous array, and wait for it."""


class HostKvCopy:
    """`KvCopy` between memories of the host, on the calling thread and without the GIL."""

    def copy(self, src: KvMemory, dst: KvMemory, runs: Runs) -> None:
        """Copy; done on return."""
        _core.kv_copy_host(src.array(), dst.array(), runs)

    def wait(self) -> None:
        """Nothing is ever on its way."""

    def done(self) -> bool:
        """Nothing is ever on its way."""
        return True

    def to_host(self, src: KvMemory, runs: Runs, size_bytes: int) -> Bytes:
        """Copy into a new array."""
        data = np.empty(size_bytes, np.uint8)
        _core.kv_copy_host(src.array(), data, runs)
        return data

    def from_host(self, data: Bytes, dst: KvMemory, runs: Runs) -> None:
        """Copy out of an array."""
        _core.kv_copy_host(data, dst.array(), runs)


def copy_blocks(
    copier: KvCopy,
    src: BlockPool,
    src_blocks: NDArray[np.int32],
    dst: BlockPool,
    dst_blocks: NDArray[np.int32],
) -> None:
    """Start the copy of `src_blocks` to `dst_blocks`, one by one.

    Raises:
        EngineError: The pools hold blocks of another kind, a block lies outside its pool, or one
            is written twice.
        DeviceError: A device refused.
    """
    runs = runs_between(src.layout, src_blocks, dst.layout, dst_blocks)
    copier.copy(src.memory, dst.memory, runs)


def export_blocks(copier: KvCopy, pool: BlockPool, blocks: NDArray[np.int32]) -> Bytes:
    """Contents of blocks, uint8 (len(blocks), block_bytes): per block its pieces in order.

    Raises:
        EngineError: A block lies outside the pool.
        DeviceError: A device refused.
    """
    packed, slots = _packed(pool, len(blocks))
    runs = runs_between(pool.layout, blocks, packed, slots)
    data = copier.to_host(pool.memory, runs, len(blocks) * packed.block_bytes)
    return data.reshape(len(blocks), packed.block_bytes)


def import_blocks(copier: KvCopy, pool: BlockPool, blocks: NDArray[np.int32], data: Bytes) -> None:
    """Write what `export_blocks` gave into other blocks.

    Raises:
        EngineError: `data` has another shape than these blocks, a block lies outside the pool or
            is named twice; then nothing is written.
        DeviceError: A device refused.
    """
    packed, slots = _packed(pool, len(blocks))
    expected = (len(blocks), packed.block_bytes)
    if data.shape != expected or data.dtype != np.uint8:
        raise EngineError(
            f"blocks are {data.dtype} {data.shape}", field="data", expected=f"uint8 {expected}"
        )
    runs = runs_between(packed, slots, pool.layout, blocks)
    copier.from_host(np.ascontiguousarray(data).reshape(-1), pool.memory, runs)


def _packed(pool: BlockPool, blocks: int) -> tuple[KvLayout, NDArray[np.int32]]:
    layout = KvLayout.packed(pool.layout.planes, blocks, pool.layout.piece_bytes)
    return layout, np.arange(blocks, dtype=np.int32)
