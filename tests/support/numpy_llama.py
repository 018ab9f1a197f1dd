"""A plain Llama in numpy on dequantised fp32 weights: the rival of the engine in benches."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from festina.engine.architecture import read_config
from festina.engine.gguf_file import GgufFile
from festina.engine.weights import read_weights


def dense(tensor):
    kind = GGMLQuantizationType(int(tensor.type))
    values = np.asarray(dequantize(tensor.data, kind), np.float32)
    return values.ravel() if tensor.rows == 1 else values.reshape(tensor.rows, tensor.columns)


class NumpyLlama:
    """`batch` sequences of equal length that step together, with a dense KV cache."""

    def __init__(self, path: Path, batch: int, tokens_max: int) -> None:
        file = GgufFile(path)
        self.config = config = read_config(file)
        weights = read_weights(file, config)
        self.embedding, self.norm = dense(weights.embedding), dense(weights.output_norm)
        names = ("attn_norm", "q", "k", "v", "output", "ffn_norm", "gate", "up", "down")
        self.layers = [{n: dense(getattr(la, n)) for n in names} for la in weights.layers]
        shape = (config.layers, batch, config.kv_heads, tokens_max, config.head_dim)
        self.keys, self.values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.length = 0
        pairs = np.arange(0, config.head_dim, 2, dtype=np.float32)
        self.frequencies = config.rope_theta ** (-pairs / config.head_dim)

    def step(self, ids: np.ndarray) -> np.ndarray:
        """Feed ids (batch, n); logits (batch, vocabulary) of the last tokens."""
        batch, n = ids.shape
        angles = np.arange(self.length, self.length + n)[:, None] * self.frequencies
        turn = np.cos(angles, dtype=np.float32), np.sin(angles, dtype=np.float32)
        x = self.embedding[ids.ravel()]
        for index, layer in enumerate(self.layers):
            x = x + self._attend(index, layer, self._rms(x, layer["attn_norm"]), batch, n, turn)
            h = self._rms(x, layer["ffn_norm"])
            gate = h @ layer["gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ layer["up"].T)) @ layer["down"].T
        self.length += n
        last = x.reshape(batch, n, -1)[:, -1]
        return self._rms(last, self.norm) @ self.embedding.T

    def _attend(self, index, layer, h, batch, n, turn):
        c, end = self.config, self.length + n
        q = self._rotate((h @ layer["q"].T).reshape(batch, n, c.heads, c.head_dim), turn)
        k = self._rotate((h @ layer["k"].T).reshape(batch, n, c.kv_heads, c.head_dim), turn)
        v = (h @ layer["v"].T).reshape(batch, n, c.kv_heads, c.head_dim)
        self.keys[index, :, :, self.length : end] = k.swapaxes(1, 2)
        self.values[index, :, :, self.length : end] = v.swapaxes(1, 2)
        keys = self.keys[index, :, :, None, :end]
        values = self.values[index, :, :, None, :end]
        groups = q.swapaxes(1, 2).reshape(batch, c.kv_heads, -1, n, c.head_dim)
        scores = groups @ keys.swapaxes(-1, -2) * np.float32(c.attention_scale)
        late = np.arange(end) > np.arange(self.length, end)[:, None]
        scores = np.where(late, np.float32(-np.inf), scores)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = scores / scores.sum(-1, keepdims=True) @ values
        flat = mixed.reshape(batch, c.heads, n, c.head_dim).swapaxes(1, 2).reshape(batch * n, -1)
        return flat @ layer["output"].T

    def _rms(self, x, gain):
        mean = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean + np.float32(self.config.norm_eps)) * gain

    @staticmethod
    def _rotate(x, turn):
        cosines, sines = (part[:, None, :] for part in turn)
        even, odd = x[..., 0::2], x[..., 1::2]
        out = np.empty_like(x)
        out[..., 0::2] = even * cosines - odd * sines
        out[..., 1::2] = odd * cosines + even * sines
        return out
