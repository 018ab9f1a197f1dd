"""The kernels in numpy: the oracle of the native ones, and their fallback.

Plain on purpose: weights are dequantised on every use and attention goes token by token. The
contract is in `kernel_types`.
"""

from __future__ import annotations

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from festina.engine.base import BLOCK_TOKENS
from festina.engine.cpu.kernel_checks import (
    check_ids,
    check_input,
    check_name,
    check_output,
    check_pool,
    require,
)
from festina.engine.cpu.kernel_types import (
    Activation,
    DecoderLayer,
    DecoderShape,
    DecoderWeights,
    FlatBatch,
    Floats,
    Ints,
    RopeStyle,
    Weight,
)


def dequantise(weight: Weight) -> Floats:
    """The weight as float32 (rows, columns)."""
    rows = np.asarray(weight.data).reshape(weight.rows, -1)
    values: Floats = dequantize(rows, GGMLQuantizationType(weight.quantisation))
    return values


def softmax(scores: Floats) -> Floats:
    """Over the last axis."""
    weights: Floats = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


class NumpyKernels:
    """See `kernel_types.Kernels`."""

    isa = "numpy"

    def matmul(self, x: Floats, weight: Weight, out: Floats, accumulate: bool = False) -> None:
        """See `Kernels.matmul`."""
        check_input(x, "x", (None, weight.columns))
        check_output(out, "out", (len(x), weight.rows))
        product = x @ dequantise(weight).T
        out[:] = out + product if accumulate else product

    def embed(self, weight: Weight, rows: Ints, scale: float, out: Floats) -> None:
        """See `Kernels.embed`."""
        check_input(rows, "rows", (None,), np.int32)
        check_output(out, "out", (len(rows), weight.columns))
        check_ids(rows, weight.rows, "rows")
        out[:] = dequantise(weight)[rows] * np.float32(scale)

    def rms_norm(self, x: Floats, gain: Floats, eps: float, out: Floats) -> None:
        """See `Kernels.rms_norm`."""
        check_input(x, "x", (None, None))
        check_input(gain, "gain", (x.shape[1],))
        check_output(out, "out", x.shape)
        mean = np.mean(x * x, axis=-1, keepdims=True)
        out[:] = x / np.sqrt(mean + np.float32(eps)) * gain

    def rope(self, x: Floats, cosines: Floats, sines: Floats, style: RopeStyle) -> None:
        """See `Kernels.rope`."""
        check_output(x, "x", (None, None, None))
        check_input(cosines, "cosines", (len(x), None))
        check_input(sines, "sines", cosines.shape)
        check_name(style, "style", ("interleaved", "half_split"), "rope style")
        pairs = cosines.shape[1]
        fits = 2 * pairs <= x.shape[2]
        require(fits, "cosines", "at most head_dim / 2 columns", "too many pairs")
        if style == "interleaved":
            first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        else:
            first, second = slice(0, pairs), slice(pairs, 2 * pairs)
        cos, sin = cosines[:, None], sines[:, None]
        a, b = x[:, :, first].copy(), x[:, :, second].copy()
        x[:, :, first] = a * cos - b * sin
        x[:, :, second] = b * cos + a * sin

    def gate(self, gate: Floats, up: Floats, activation: Activation) -> None:
        """See `Kernels.gate`."""
        check_output(gate, "gate")
        check_input(up, "up", gate.shape)
        check_name(activation, "activation", ("silu", "gelu_tanh"), "activation")
        if activation == "silu":
            gate[:] = gate / (1 + np.exp(-gate)) * up
        else:
            inner = np.float32(np.sqrt(2 / np.pi)) * (gate + np.float32(0.044715) * gate**3)
            gate[:] = np.float32(0.5) * gate * (1 + np.tanh(inner)) * up

    def add(self, x: Floats, y: Floats) -> None:
        """See `Kernels.add`."""
        check_output(x, "x")
        check_input(y, "y", x.shape)
        x += y

    def store_kv(
        self,
        k: Floats,
        v: Floats,
        batch: FlatBatch,
        keys: Floats,
        values: Floats,
    ) -> None:
        """See `Kernels.store_kv`."""
        check_input(k, "k", (None, None, None))
        check_input(v, "v", k.shape)
        check_pool(keys, values, k.shape[2], BLOCK_TOKENS)
        require(len(k) == len(batch.positions), "k", "one row per token", "wrong length")
        require(k.shape[1] == keys.shape[1], "k", "the pool's KV heads", "wrong heads")
        batch.check(len(keys))
        first = batch.block_offsets[batch.sequences]
        block = batch.blocks[first + batch.positions // BLOCK_TOKENS]
        slot = batch.positions % BLOCK_TOKENS
        keys[block, :, :, slot] = k
        values[block, :, slot] = v

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
        """See `Kernels.attention`."""
        check_input(q, "q", (None, None, None))
        check_output(out, "out", q.shape)
        check_pool(keys, values, q.shape[2], BLOCK_TOKENS)
        kv_heads, head_dim = keys.shape[1:3]
        require(len(q) == len(batch.positions), "q", "one row per token", "wrong length")
        fits = kv_heads > 0 and q.shape[1] % kv_heads == 0
        require(fits, "q", "a multiple of the KV heads", "wrong heads")
        batch.check(len(keys))
        for token, (position, sequence) in enumerate(
            zip(batch.positions, batch.sequences, strict=True)
        ):
            table = batch.blocks[slice(*batch.block_offsets[sequence : sequence + 2])]
            seen = slice(max(0, position + 1 - window) if window else 0, position + 1)
            k = keys[table].transpose(1, 0, 3, 2).reshape(kv_heads, -1, head_dim)[:, seen]
            v = values[table].transpose(1, 0, 2, 3).reshape(kv_heads, -1, head_dim)[:, seen]
            grouped = q[token].reshape(kv_heads, -1, head_dim)
            weights = softmax(grouped @ k.transpose(0, 2, 1) * np.float32(scale))
            out[token] = (weights @ v).reshape(-1, head_dim)

    def argmax(self, x: Floats, out: Ints) -> None:
        """See `Kernels.argmax`."""
        check_input(x, "x", (None, None))
        check_output(out, "out", (len(x),), np.int32)
        require(x.shape[1] > 0, "x", "at least one column", "nothing to choose from")
        out[:] = x.argmax(axis=1)


class NumpyDecoder:
    """See `kernel_types.Decoder` and `kernels.make_decoder`."""

    def __init__(
        self, shape: DecoderShape, weights: DecoderWeights, keys: Floats, values: Floats
    ) -> None:
        self._kernels = NumpyKernels()
        self._shape, self._weights = shape, weights
        self._keys, self._values = keys, values

    def forward(self, token_ids: Ints, batch: FlatBatch, logit_rows: Ints, logits: Floats) -> None:
        """See `kernel_types.Decoder`."""
        weights, shape = self._weights, self._shape
        angles = [batch.positions[:, None].astype(np.float32) * f for f in shape.frequencies]
        turns = [(np.cos(a), np.sin(a)) for a in angles]
        x = np.empty((len(token_ids), weights.embedding.columns), np.float32)
        self._kernels.embed(weights.embedding, token_ids, shape.embedding_scale, x)
        for layer, keys, values in zip(weights.layers, self._keys, self._values, strict=True):
            normed = self._norm(x, layer.attn_norm)
            x += self._attend(layer, normed, batch, turns[layer.rope], keys, values)
            x += self._feed_forward(layer, self._norm(x, layer.ffn_norm))
        normed = self._norm(x[logit_rows], weights.output_norm)
        self._kernels.matmul(normed, weights.output, logits)

    def _norm(self, x: Floats, gain: Floats | None) -> Floats:
        if gain is None:
            return x
        out = np.empty_like(x)
        rows = (-1, x.shape[-1])
        self._kernels.rms_norm(x.reshape(rows), gain, self._shape.norm_eps, out.reshape(rows))
        return out

    def _project(self, x: Floats, weight: Weight) -> Floats:
        out = np.empty((len(x), weight.rows), np.float32)
        self._kernels.matmul(x, weight, out)
        return out

    def _attend(
        self,
        layer: DecoderLayer,
        x: Floats,
        batch: FlatBatch,
        turn: tuple[Floats, Floats],
        keys: Floats,
        values: Floats,
    ) -> Floats:
        heads = (len(x), -1, self._shape.head_dim)
        q = self._norm(self._project(x, layer.q).reshape(heads), layer.q_norm)
        k = self._norm(self._project(x, layer.k).reshape(heads), layer.k_norm)
        v = self._project(x, layer.v).reshape(heads)
        for turned in (q, k):
            self._kernels.rope(turned, *turn, self._shape.rope_style)
        self._kernels.store_kv(k, v, batch, keys, values)
        out = np.empty_like(q)
        scale = self._shape.attention_scale
        self._kernels.attention(q, batch, keys, values, scale, layer.window, out)
        return self._norm(self._project(out.reshape(len(x), -1), layer.o), layer.attn_post_norm)

    def _feed_forward(self, layer: DecoderLayer, x: Floats) -> Floats:
        gate = self._project(x, layer.gate)
        self._kernels.gate(gate, self._project(x, layer.up), self._shape.activation)
        return self._norm(self._project(gate, layer.down), layer.ffn_post_norm)
