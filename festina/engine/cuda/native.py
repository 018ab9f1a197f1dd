"""Our kernels on tensors: on a GPU, or their bodies as host code on tensors in host memory."""

from __future__ import annotations

import torch

from festina import _core
from festina.engine.architecture import DecoderConfig
from festina.engine.base import BLOCK_TOKENS
from festina.engine.cuda.batches import DeviceBatch
from festina.engine.cuda.pool import KvPool

BLOCKS_PER_SM = 4
"""Thread blocks that an SM should have at the least, so that memory is always asked for something.

Not yet measured.
"""
SPLIT_TOKENS_MIN = 256
SPLITS_MAX = 64


def splits_of(thread_blocks: int, sms: int, context_tokens: int) -> int:
    """Parts of a context, so that few sequences fill the SMs, and none is too short to pay.

    Args:
        thread_blocks: With one split.
        sms: To be filled.
        context_tokens: Longest context that there can be.
    """
    wanted = -(-BLOCKS_PER_SM * sms // thread_blocks)
    return max(1, min(wanted, -(-context_tokens // SPLIT_TOKENS_MIN), SPLITS_MAX))


class NativeSingle:
    """`SingleAttention` by csrc/cuda/paged_attention.

    Args:
        config: Sizes and scale.
        pool: Keys and values, float32 or bf16.
        on_device: On a GPU, on PyTorch's current stream; else as host code.
    """

    def __init__(self, config: DecoderConfig, pool: KvPool, *, on_device: bool) -> None:
        self._config = config
        self._pool = pool
        self._on_device = on_device

    def __call__(
        self, q: torch.Tensor, layer: int, batch: DeviceBatch, window: int
    ) -> torch.Tensor:
        """See `SingleAttention`."""
        config, tables = self._config, batch.fields.tables
        sequences, width = len(q), tables.shape[1]
        splits = splits_of(sequences * config.kv_heads, batch.sms, width * BLOCK_TOKENS)
        shape = _core.PagedAttentionShape(
            sequences=sequences,
            kv_heads=config.kv_heads,
            group=config.heads // config.kv_heads,
            head_dim=config.head_dim,
            table_width=width,
            window=window,
            splits=splits,
            scale=config.attention_scale,
            block_stride=self._pool.data.stride(0),
            q_stride=q.stride(0),
        )
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        scratch = torch.empty(shape.scratch, dtype=torch.float32, device=q.device)
        arrays = _core.PagedAttentionArrays(
            q=q.data_ptr(),
            keys=self._pool.keys(layer).data_ptr(),
            values=self._pool.values(layer).data_ptr(),
            tables=tables.data_ptr(),
            lengths=batch.fields.lengths.data_ptr(),
            scratch=scratch.data_ptr(),
            out=out.data_ptr(),
        )
        bf16 = q.dtype is torch.bfloat16
        if self._on_device:
            stream = torch.cuda.current_stream(q.device).cuda_stream
            _core.paged_attention_device(shape, arrays, bf16, stream)
        else:
            _core.paged_attention_host(shape, arrays, bf16)
        return out
