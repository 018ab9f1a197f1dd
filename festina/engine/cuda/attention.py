"""Attention over the paged cache: whole chunks by PyTorch, single tokens by our kernel."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - the name PyTorch's users know
from torch.nn.attention.bias import causal_lower_right

from festina.engine.architecture import DecoderConfig
from festina.engine.base import BLOCK_TOKENS
from festina.engine.cuda.batches import DeviceBatch, Span
from festina.engine.cuda.pool import KvPool


class SingleAttention(Protocol):
    """Attention of one new token each of several sequences."""

    def __call__(
        self, q: torch.Tensor, layer: int, batch: DeviceBatch, window: int
    ) -> torch.Tensor:
        """Causal attention over one layer's cache.

        Args:
            q: (s, heads, head_dim); rows may be apart.
            layer: Index of the layer.
            batch: Has their lengths, 0 of which gives zeros, and tables, in its first s rows.
            window: Keys that are seen, the new one included; 0 for all.

        Returns:
            (s, heads, head_dim).
        """


class Attention:
    """Attention of a decoder over its pool.

    Args:
        config: Sizes and scale.
        pool: Keys and values; those of the step are already in it.
        single: For chunks of one token.
    """

    def __init__(self, config: DecoderConfig, pool: KvPool, single: SingleAttention) -> None:
        self._config = config
        self._pool = pool
        self._single = single

    def __call__(self, q: torch.Tensor, layer: int, batch: DeviceBatch) -> torch.Tensor:
        """Of q (t, heads, head_dim), as (t, heads · head_dim)."""
        window = self._config.window if self._config.is_local(layer) else 0
        parts = []
        if batch.singles:
            first = slice(batch.singles)
            parts.append(self._single(q[first], layer, batch, window))
        parts += [self._chunk(q, layer, batch, span, window) for span in batch.spans]
        mixed = parts[0] if len(parts) == 1 else torch.cat(parts)
        return mixed.flatten(1)

    def _chunk(
        self, q: torch.Tensor, layer: int, batch: DeviceBatch, span: Span, window: int
    ) -> torch.Tensor:
        rows = q[span.row : span.row + span.tokens]
        table = batch.fields.tables[span.sequence]
        return chunk_attention(
            rows, self._pool, layer, table, span.start, window, self._config.attention_scale
        )


class TorchSingle:
    """`SingleAttention` one sequence after the other: the reference.

    Args:
        config: Sizes and scale.
        pool: Keys and values.
    """

    def __init__(self, config: DecoderConfig, pool: KvPool) -> None:
        self._scale = config.attention_scale
        self._pool = pool

    def __call__(
        self, q: torch.Tensor, layer: int, batch: DeviceBatch, window: int
    ) -> torch.Tensor:
        """See `SingleAttention`."""
        out = torch.zeros_like(q)
        for row, length in enumerate(batch.fields.lengths[: len(q)].tolist()):
            if length:
                one, table = q[row : row + 1], batch.fields.tables[row]
                out[row] = chunk_attention(
                    one, self._pool, layer, table, length - 1, window, self._scale
                )[0]
        return out


def chunk_attention(
    q: torch.Tensor,
    pool: KvPool,
    layer: int,
    table: torch.Tensor,
    start: int,
    window: int,
    scale: float,
) -> torch.Tensor:
    """Causal attention of a chunk q (n, heads, head_dim) that begins at `start`; shaped like it.

    The blocks that it sees are gathered first: reading them is little beside the chunk's products.
    """
    end = start + len(q)
    first = max(0, start + 1 - window) // BLOCK_TOKENS if window else 0
    blocks = table[first : -(-end // BLOCK_TOKENS)]
    seen = slice(end - first * BLOCK_TOKENS)
    keys = pool.keys(layer).index_select(0, blocks).permute(1, 0, 3, 2, 4)
    values = pool.values(layer).index_select(0, blocks).transpose(0, 1)
    group = q.shape[1] // keys.shape[0]
    shape = (len(keys), -1, q.shape[2])
    # Heads are repeated: not every kernel of PyTorch's takes groups, and one that materialises the
    # scores instead would not fit beside the weights.
    wide_keys, wide_values = (
        part.reshape(shape)[:, seen].repeat_interleave(group, dim=0)[None]
        for part in (keys, values)
    )
    q = q.transpose(0, 1)[None]
    offset = start - first * BLOCK_TOKENS
    if window == 0 and offset == 0:
        mixed = F.scaled_dot_product_attention(
            q, wide_keys, wide_values, is_causal=True, scale=scale
        )
    else:
        mask = (
            causal_lower_right(q.shape[2], wide_keys.shape[2])
            if window == 0
            else _window_mask(q.shape[2], wide_keys.shape[2], offset, window, q.device)
        )
        mixed = F.scaled_dot_product_attention(
            q, wide_keys, wide_values, attn_mask=mask, scale=scale
        )
    return mixed[0].transpose(0, 1)


def _window_mask(
    tokens: int, keys: int, offset: int, window: int, device: torch.device
) -> torch.Tensor:
    """Which keys each token sees, bool (tokens, keys): its own at `offset` + i and those before."""
    own = torch.arange(tokens, device=device)[:, None] + offset
    place = torch.arange(keys, device=device)
    return (place <= own) & (place > own - window)
