"""A decoder in plain float64 numpy, without a cache: the engines must say what it says."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from festina.engine.architecture import Activation, RopeStyle, read_config
from festina.engine.model_file import open_weights
from festina.engine.weights import read_weights


class PlainDecoder:
    """The model in `path`; every step computes the whole sequence."""

    def __init__(self, path: Path) -> None:
        file = open_weights(path)
        self.config = read_config(file)
        self.weights = read_weights(file, self.config)

    def greedy(self, ids: list[int], tokens: int) -> list[int]:
        """Continuation, each choice clear by 1e-4 at least."""
        output: list[int] = []
        for _ in range(tokens):
            logits = self.logits([*ids, *output])[-1]
            second, first = np.sort(logits)[-2:]
            assert first - second > 1e-4
            output.append(int(np.argmax(logits)))
        return output

    def logits(self, ids: list[int]) -> np.ndarray:
        """(n, vocabulary)."""
        config, weights = self.config, self.weights
        x = _dense(weights.embedding)[ids] * config.embedding_scale
        for index, layer in enumerate(weights.layers):
            out = (
                self._attend(self._norm(x, layer.attn_norm), layer, index) @ _dense(layer.output).T
            )
            x = x + self._norm(out, layer.post_attn_norm)
            h = self._norm(x, layer.ffn_norm)
            gate, up = h @ _dense(layer.gate).T, h @ _dense(layer.up).T
            out = self._activated(gate) * up @ _dense(layer.down).T
            x = x + self._norm(out, layer.post_ffn_norm)
        return self._norm(x, weights.output_norm) @ _dense(weights.output).T

    def _attend(self, h, layer, index):
        config, n = self.config, len(h)
        q, k, v = (
            (h @ _dense(weight).T + (0.0 if bias is None else _dense(bias))).reshape(
                n, -1, config.head_dim
            )
            for weight, bias in (
                (layer.q, layer.q_bias),
                (layer.k, layer.k_bias),
                (layer.v, layer.v_bias),
            )
        )
        q, k = self._norm(q, layer.q_norm), self._norm(k, layer.k_norm)
        local = config.is_local(index)
        q, k = self._turned(q, local), self._turned(k, local)
        k, v = (np.repeat(x, config.heads // config.kv_heads, axis=1) for x in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) * config.attention_scale
        own, other = np.arange(n)[:, None], np.arange(n)
        hidden = other > own
        if local:
            hidden |= other <= own - config.window
        scores = np.where(hidden, -np.inf, scores)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = scores / scores.sum(-1, keepdims=True)
        return np.einsum("hij,jhd->ihd", mixed, v).reshape(n, -1)

    def _turned(self, x, local):
        config = self.config
        theta = config.local_theta if local else config.rope_theta
        pairs = config.rope_dims // 2
        inverse = theta ** (-np.arange(pairs) / pairs) / (1.0 if local else config.rope_scale)
        angles = (np.arange(len(x))[:, None] * inverse)[:, None]
        halves = config.rope_style is RopeStyle.HALF_SPLIT
        first = slice(0, pairs) if halves else slice(0, 2 * pairs, 2)
        second = slice(pairs, 2 * pairs) if halves else slice(1, 2 * pairs, 2)
        out = x.copy()
        out[..., first] = x[..., first] * np.cos(angles) - x[..., second] * np.sin(angles)
        out[..., second] = x[..., second] * np.cos(angles) + x[..., first] * np.sin(angles)
        return out

    def _norm(self, x, gain):
        if gain is None:
            return x
        return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + self.config.norm_eps) * _dense(gain)

    def _activated(self, x):
        if self.config.activation is Activation.SILU:
            return x / (1 + np.exp(-x))
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _dense(tensor):
    values = np.asarray(dequantize(tensor.data, GGMLQuantizationType(int(tensor.type))), np.float64)
    return values.ravel() if tensor.rows == 1 else values.reshape(tensor.rows, tensor.columns)
