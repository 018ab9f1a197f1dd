"""Where KV blocks lie in memory, and the table of runs that takes blocks from one pool to another.

A block's content is a number of pieces of equal size (keys and values of every layer, say); pools
differ in how pieces are strewn. Everything is counted in bytes, and nothing here copies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from festina.errors import EngineError

GRAIN_BYTES = 16
"""Every offset and size of a copy is a multiple of this."""


@dataclass(frozen=True, slots=True)
class KvLayout:
    """How the pieces of blocks are strewn over a pool.

    Piece p of block b starts at p·plane_stride_bytes + b·block_stride_bytes.

    Attributes:
        planes: Pieces of a block.
        blocks: Blocks; ids are 0 … blocks-1.
        piece_bytes: Bytes of a piece, a multiple of `GRAIN_BYTES`.
        plane_stride_bytes: From one piece of a block to its next.
        block_stride_bytes: From a piece to the same one of the next block.

    Raises:
        ValueError: A size is not positive, or not a multiple of `GRAIN_BYTES`.
    """

    planes: int
    blocks: int
    piece_bytes: int
    plane_stride_bytes: int
    block_stride_bytes: int

    def __post_init__(self) -> None:
        if self.planes < 1 or self.blocks < 0:
            raise ValueError(f"{self.planes} planes of {self.blocks} blocks: expected some planes")
        for field in ("piece_bytes", "plane_stride_bytes", "block_stride_bytes"):
            size_bytes = getattr(self, field)
            if size_bytes < 1 or size_bytes % GRAIN_BYTES:
                raise ValueError(f"{field} {size_bytes}: expected a multiple of {GRAIN_BYTES}")

    @classmethod
    def planar(cls, planes: int, blocks: int, piece_bytes: int) -> KvLayout:
        """Pieces of one kind side by side, as engines keep them: (planes, blocks, piece)."""
        return cls(planes, blocks, piece_bytes, max(blocks, 1) * piece_bytes, piece_bytes)

    @classmethod
    def packed(cls, planes: int, blocks: int, piece_bytes: int) -> KvLayout:
        """Pieces of one block side by side, as blocks travel: (blocks, planes, piece)."""
        return cls(planes, blocks, piece_bytes, piece_bytes, planes * piece_bytes)

    @property
    def block_bytes(self) -> int:
        """Bytes of one block, without what lies between its pieces."""
        return self.planes * self.piece_bytes

    @property
    def size_bytes(self) -> int:
        """Bytes from the start of the pool to the end of its last piece."""
        if self.blocks == 0:
            return 0
        last = (self.planes - 1) * self.plane_stride_bytes
        return last + (self.blocks - 1) * self.block_stride_bytes + self.piece_bytes

    def offsets(self, blocks: NDArray[np.int32]) -> NDArray[np.uint64]:
        """Where every piece of `blocks` starts, uint64 (planes, len(blocks)).

        Raises:
            EngineError: A block lies outside the pool.
        """
        ids = blocks.astype(np.uint64)  # negative ones become huge
        if len(ids) and np.maximum.reduce(ids) >= self.blocks:
            raise EngineError(
                "a block lies outside the pool", field="blocks", expected=f"0 … {self.blocks - 1}"
            )
        starts = ids * np.uint64(self.block_stride_bytes)
        if self.planes == 1:
            return starts[None]
        planes = np.arange(self.planes, dtype=np.uint64) * np.uint64(self.plane_stride_bytes)
        return planes[:, None] + starts


def runs_between(
    src: KvLayout,
    src_blocks: NDArray[np.int32],
    dst: KvLayout,
    dst_blocks: NDArray[np.int32],
) -> NDArray[np.uint64]:
    """Runs that take `src_blocks` to `dst_blocks`, one by one.

    Returns:
        uint64 (planes·len(src_blocks), 3) of (src_offset, dst_offset, size), not merged yet.

    Raises:
        EngineError: The pools hold blocks of another kind, the lists differ in length, a block
            lies outside its pool, or one is written twice.
    """
    if (src.planes, src.piece_bytes) != (dst.planes, dst.piece_bytes):
        raise EngineError(
            f"blocks of {src.planes} × {src.piece_bytes} bytes",
            field="layout",
            expected=f"{dst.planes} × {dst.piece_bytes}",
        )
    ordered = np.sort(dst_blocks)
    targets = len(dst_blocks) - np.count_nonzero(ordered[1:] == ordered[:-1])
    if not len(src_blocks) == len(dst_blocks) == targets:
        raise EngineError(
            f"{len(src_blocks)} blocks go to {targets} different ones",
            field="blocks",
            expected="as many different ones",
        )
    runs = np.empty((src.planes, len(src_blocks), 3), np.uint64)
    runs[:, :, 0] = src.offsets(src_blocks)
    runs[:, :, 1] = dst.offsets(dst_blocks)
    runs[:, :, 2] = src.piece_bytes
    return runs.reshape(-1, 3)
