"""The paged KV cache of one deployment, allocated once."""

from __future__ import annotations

import torch

from festina.engine.architecture import DecoderConfig
from festina.engine.base import BLOCK_TOKENS
from festina.engine.kv_copy import BlockPool, KvMemory, Place
from festina.engine.kv_layout import KvLayout

KEY_GROUP = 8
"""Components of a key that lie together: one 16-byte load of bf16 per token."""


class KvPool:
    """Cached keys and values. A block holds all layers, so that a request's blocks are few runs.

    Per block, layer and head: keys (head_dim / 8, BLOCK_TOKENS, 8), so that neighbouring threads
    read neighbouring tokens; values (BLOCK_TOKENS, head_dim). One block more than asked for takes
    what padding writes.

    Args:
        config: Sizes; `head_dim` is a multiple of 8.
        blocks: Blocks that can be used.
        device: Where.
        dtype: Of keys and values.

    Attributes:
        data: (blocks + 1, layers, 2, kv_heads, head_dim · BLOCK_TOKENS).

    Raises:
        torch.OutOfMemoryError: The device has not so much memory.
    """

    def __init__(
        self, config: DecoderConfig, blocks: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._head_dim = config.head_dim
        size = config.head_dim * BLOCK_TOKENS
        shape = (blocks + 1, config.layers, 2, config.kv_heads, size)
        self.data = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def blocks(self) -> int:
        """Blocks that can be used: 0 … blocks - 1."""
        return len(self.data) - 1

    @property
    def spare(self) -> int:
        """The block for what nobody reads."""
        return self.blocks

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers."""
        return int(self.data[0].nbytes)

    def keys(self, layer: int) -> torch.Tensor:
        """A view (blocks + 1, kv_heads, head_dim / 8, BLOCK_TOKENS, 8)."""
        groups = (self._head_dim // KEY_GROUP, BLOCK_TOKENS, KEY_GROUP)
        keys = self.data[:, layer, 0]
        return keys.view(*keys.shape[:-1], *groups)

    def values(self, layer: int) -> torch.Tensor:
        """A view (blocks + 1, kv_heads, BLOCK_TOKENS, head_dim)."""
        values = self.data[:, layer, 1]
        return values.view(*values.shape[:-1], BLOCK_TOKENS, self._head_dim)

    @property
    def content(self) -> BlockPool:
        """The same as blocks to copy, each in one piece; without the spare one."""
        layout = KvLayout.packed(1, self.blocks, self.block_bytes)
        if self.data.device.type == "cpu":
            memory = KvMemory.of_array(self.data.view(torch.uint8).numpy())
        else:
            address, size_bytes = self.data.data_ptr(), self.data.nbytes
            ordinal = self.data.device.index
            memory = KvMemory(address, size_bytes, Place.DEVICE, ordinal, self.data)
        return BlockPool(memory, layout)
