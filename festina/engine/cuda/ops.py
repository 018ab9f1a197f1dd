"""The small operations between matrix products, in plain tensor code for any device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - the name PyTorch's users know

from festina.engine.architecture import Activation, DecoderConfig, RopeStyle
from festina.engine.base import BLOCK_TOKENS
from festina.engine.cuda.batches import Fields
from festina.engine.cuda.pool import KEY_GROUP, KvPool
from festina.engine.cuda.tensors import LayerTensors

Turn = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines, float32 (t, pairs)."""


@dataclass(frozen=True, slots=True)
class Heads:
    """How a row of queries, keys and values divides.

    Attributes:
        queries: Query heads.
        keys: Key heads, and as many value heads.
        size: Components of a head.
    """

    queries: int
    keys: int
    size: int

    @classmethod
    def of(cls, config: DecoderConfig) -> Heads:
        """Those of a decoder."""
        return cls(config.heads, config.kv_heads, config.head_dim)


class Ops(Protocol):
    """What the decoder needs between matrix products; all rows are of one type."""

    def norm(self, x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        """Norm of rows: x / sqrt(mean(x²) + eps) · gain, of x (n, width)."""

    def add_norm(
        self, x: torch.Tensor, update: torch.Tensor, gain: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of two (n, width), and its norm; may overwrite `x`."""

    def rotate_and_store(
        self,
        qkv: torch.Tensor,
        layer: LayerTensors,
        index: int,
        fields: Fields[torch.Tensor],
        turn: Turn,
    ) -> torch.Tensor:
        """Norm and turn queries and keys, cache keys and values; gives queries (t, heads, size).

        Args:
            qkv: (t, (queries + 2 · keys) · size); may be overwritten.
            layer: Has the norms.
            index: Of the layer, in the pool.
            fields: Where the tokens belong.
            turn: By which angles.
        """

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        """activation(gate) · up of (n, 2 · ff_width): (n, ff_width)."""


class TorchOps:
    """`Ops` in plain tensor operations: the reference, and what runs where there is no GPU.

    Args:
        config: Rules of the decoder.
        pool: Where keys and values go.
    """

    def __init__(self, config: DecoderConfig, pool: KvPool) -> None:
        self._config = config
        self._heads = Heads.of(config)
        self._pool = pool

    def norm(self, x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        """See `Ops`."""
        wide = x.float()
        mean = wide.square().mean(-1, keepdim=True)
        return (wide * torch.rsqrt(mean + self._config.norm_eps) * gain).to(x.dtype)

    def add_norm(
        self, x: torch.Tensor, update: torch.Tensor, gain: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Ops`."""
        total = x + update
        return total, self.norm(total, gain)

    def rotate_and_store(
        self,
        qkv: torch.Tensor,
        layer: LayerTensors,
        index: int,
        fields: Fields[torch.Tensor],
        turn: Turn,
    ) -> torch.Tensor:
        """See `Ops`."""
        heads = self._heads
        parts = qkv.view(len(qkv), -1, heads.size).split(
            [heads.queries, heads.keys, heads.keys], dim=1
        )
        queries = self._turned(parts[0], layer.q_norm, turn)
        keys = self._turned(parts[1], layer.k_norm, turn)
        slots = fields.slots.long()
        blocks, places = slots // BLOCK_TOKENS, slots % BLOCK_TOKENS
        self._pool.keys(index)[blocks, :, :, places] = keys.unflatten(-1, (-1, KEY_GROUP))
        self._pool.values(index)[blocks, :, places] = parts[2]
        return queries

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        """See `Ops`."""
        gate, up = gate_up.float().chunk(2, dim=-1)
        if self._config.activation is Activation.GELU_TANH:
            return (F.gelu(gate, approximate="tanh") * up).to(gate_up.dtype)
        return (F.silu(gate) * up).to(gate_up.dtype)

    def _turned(self, x: torch.Tensor, gain: torch.Tensor | None, turn: Turn) -> torch.Tensor:
        """Heads x (t, heads, size), normed and turned, as their type."""
        normed = (x if gain is None else self.norm(x, gain)).float()
        pairs = turn[0].shape[-1]
        cosines, sines = (part[:, None] for part in turn)
        if self._config.rope_style is RopeStyle.HALF_SPLIT:
            first, second = normed[..., :pairs], normed[..., pairs : 2 * pairs]
        else:
            first, second = normed[..., 0 : 2 * pairs : 2], normed[..., 1 : 2 * pairs : 2]
        turned = (first * cosines - second * sines, second * cosines + first * sines)
        if self._config.rope_style is RopeStyle.HALF_SPLIT:
            whole = torch.cat(turned, dim=-1)
        else:
            whole = torch.stack(turned, dim=-1).flatten(-2)
        return torch.cat([whole, normed[..., 2 * pairs :]], dim=-1).to(x.dtype)
