"""What the kernels work on: the contract that the native and the numpy form share.

Arrays are C-contiguous; float32 unless said otherwise; results go into arrays the caller gives.

`Weight(data, quantisation, rows, columns)` is a matrix as its GGUF file has it: uint8 data of any
shape (memory-mapped, unaligned), and a `gguf.GGMLQuantizationType`. It is not copied.

`FlatBatch(positions, sequences, blocks, block_offsets)` says where the tokens of a step belong, in
int32: `positions` (t,), `sequences` (t,) an index per token, `blocks` (b,) the block tables of all
sequences one after the other, `block_offsets` (s+1,) where each begins.

KV pool: `keys` (layers, blocks, kv_heads, head_dim, 16), tokens innermost, so that the scores of
one block are one vector; `values` (layers, blocks, kv_heads, 16, head_dim). Block `b` of a request
is `keys[:, b]` and `values[:, b]`.

Bad shapes, types and indices raise `EngineError` with the field, before anything is written; an
unknown quantisation raises `UnsupportedModelError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from festina._core import CpuBatch as FlatBatch
from festina._core import CpuWeight as Weight

__all__ = [
    "Activation",
    "Decoder",
    "DecoderLayer",
    "DecoderShape",
    "DecoderWeights",
    "FlatBatch",
    "Floats",
    "Ints",
    "Kernels",
    "RopeStyle",
    "Weight",
]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Activation = Literal["silu", "gelu_tanh"]
RopeStyle = Literal["interleaved", "half_split"]


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """What is the same in all layers of a decoder.

    Attributes:
        heads: Query heads.
        kv_heads: Key and value heads, a divisor of `heads`.
        head_dim: Values per head.
        norm_eps: Added to the mean square in every norm.
        attention_scale: Applied to attention scores.
        embedding_scale: Applied to token embeddings.
        activation: Of the feed-forward gate.
        rope_style: `interleaved` pairs neighbours (GGUF `llama`), `half_split` pairs i with
            i + pairs (gemma3).
        frequencies: Inverse frequencies, (pairs,) each with pairs ≤ head_dim / 2, one array per
            kind of rotation that layers use.
    """

    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    attention_scale: float
    embedding_scale: float
    activation: Activation
    rope_style: RopeStyle
    frequencies: tuple[Floats, ...]


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """Weights of one layer; norms that an architecture lacks are None.

    Attributes:
        q: (heads · head_dim, width).
        k: (kv_heads · head_dim, width).
        v: (kv_heads · head_dim, width).
        o: (width, heads · head_dim).
        gate: (hidden, width).
        up: (hidden, width).
        down: (width, hidden).
        attn_norm: (width,), before attention.
        ffn_norm: (width,), before the feed-forward part.
        q_norm: (head_dim,), over each query head.
        k_norm: (head_dim,), over each key head.
        attn_post_norm: (width,), over what attention adds.
        ffn_post_norm: (width,), over what the feed-forward part adds.
        window: Keys that a token sees, itself included; 0 for all.
        rope: Index into `DecoderShape.frequencies`.
    """

    q: Weight
    k: Weight
    v: Weight
    o: Weight
    gate: Weight
    up: Weight
    down: Weight
    attn_norm: Floats
    ffn_norm: Floats
    q_norm: Floats | None = None
    k_norm: Floats | None = None
    attn_post_norm: Floats | None = None
    ffn_post_norm: Floats | None = None
    window: int = 0
    rope: int = 0


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """All weights of a model.

    Attributes:
        embedding: (vocabulary, width).
        output: (vocabulary, width); the same object as `embedding` where they are tied.
        output_norm: (width,).
        layers: At least one.
    """

    embedding: Weight
    output: Weight
    output_norm: Floats
    layers: tuple[DecoderLayer, ...]


class Decoder(Protocol):
    """All layers of a Llama-class model over a KV pool. One thread at a time."""

    def forward(self, token_ids: Ints, batch: FlatBatch, logit_rows: Ints, logits: Floats) -> None:
        """One step: cache keys and values of all tokens, give logits of some.

        Args:
            token_ids: (t,).
            batch: Where the t tokens belong. Keys at lower positions of a sequence must be in the
                pool already, or come in this batch.
            logit_rows: (r,), tokens of this batch whose logits are wanted; may be empty.
            logits: (r, vocabulary), written.
        """


class Kernels(Protocol):
    """Single kernels, for tests, benches and models that `Decoder` does not cover. One thread."""

    @property
    def isa(self) -> str:
        """Instruction set, or "numpy"."""

    def matmul(self, x: Floats, weight: Weight, out: Floats, accumulate: bool = False) -> None:
        """Product x (n, columns) · weightᵀ = out (n, rows), added to `out` if `accumulate`."""

    def embed(self, weight: Weight, rows: Ints, scale: float, out: Floats) -> None:
        """The rows of `weight` that `rows` (n,) names, times `scale`, to out (n, columns)."""

    def rms_norm(self, x: Floats, gain: Floats, eps: float, out: Floats) -> None:
        """Row norm x / sqrt(mean(x²) + eps) · gain of x (n, width); `out` may be `x`."""

    def rope(self, x: Floats, cosines: Floats, sines: Floats, style: RopeStyle) -> None:
        """Turn x (n, heads, head_dim) in place by cosines and sines (n, pairs)."""

    def gate(self, gate: Floats, up: Floats, activation: Activation) -> None:
        """Set gate = activation(gate) · up, elementwise."""

    def add(self, x: Floats, y: Floats) -> None:
        """Add y to x."""

    def store_kv(
        self, k: Floats, v: Floats, batch: FlatBatch, keys: Floats, values: Floats
    ) -> None:
        """Write k, v (t, kv_heads, head_dim) into one layer's `keys` and `values`."""

    def attention(
        self,
        q: Floats,
        batch: FlatBatch,
        keys: Floats,
        values: Floats,
        scale: float,
        window: int,
        out: Floats,
    ) -> None:
        """Causal attention of q (t, heads, head_dim) over one layer's cache.

        Each token sees the keys 0 … its position, of these the last `window` if that is not 0.
        """

    def argmax(self, x: Floats, out: Ints) -> None:
        """Index of the largest value per row of x (n, width); the first of equals."""
