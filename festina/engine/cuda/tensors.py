"""Weights of a decoder as tensors on a device; those that are used together lie together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from festina.engine.architecture import DecoderConfig
from festina.engine.cuda.dequantize import fill
from festina.engine.gguf_file import Tensor
from festina.engine.rope import frequencies
from festina.engine.weights import DecoderWeights, LayerWeights


@dataclass(frozen=True, slots=True)
class LayerTensors:
    """Weights of one layer; what an architecture lacks is None. Norms and biases are float32.

    Attributes:
        attn_norm: (width,).
        qkv: (heads · head_dim + 2 · kv_heads · head_dim, width): queries, keys, values.
        qkv_bias: Its rows, in the weights' type.
        q_norm: (head_dim,).
        k_norm: (head_dim,).
        output: (width, heads · head_dim).
        attn_post_norm: (width,).
        ffn_norm: (width,).
        gate_up: (2 · ff_width, width): gate, then up.
        down: (width, ff_width).
        ffn_post_norm: (width,).
    """

    attn_norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    output: torch.Tensor
    attn_post_norm: torch.Tensor | None
    ffn_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    ffn_post_norm: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class DecoderTensors:
    """Weights of a decoder.

    Attributes:
        embedding: (vocabulary, width).
        layers: One per layer.
        output_norm: (width,).
        output: (vocabulary, width); the embedding where they are tied.
        frequencies: Inverse RoPE frequencies, float32 (pairs,): global layers', then local ones'.
    """

    embedding: torch.Tensor
    layers: tuple[LayerTensors, ...]
    output_norm: torch.Tensor
    output: torch.Tensor
    frequencies: tuple[torch.Tensor, ...]

    @property
    def resident_bytes(self) -> int:
        """Memory of all weights."""
        return _bytes([*self._read(), self.embedding]) - self._tied_bytes

    @property
    def read_bytes(self) -> int:
        """Bytes that one token's step reads: all but the embedding's other rows."""
        return _bytes(self._read())

    @property
    def _tied_bytes(self) -> int:
        return self.embedding.nbytes if self.output is self.embedding else 0

    def _read(self) -> list[torch.Tensor]:
        layers = ((layer.qkv, layer.output, layer.gate_up, layer.down) for layer in self.layers)
        return [self.output, *(tensor for layer in layers for tensor in layer)]


class Loader:
    """Makes tensors on a device.

    Args:
        device: Where.
        dtype: Of matrices and biases.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._dtype = dtype

    def load(self, config: DecoderConfig, weights: DecoderWeights) -> DecoderTensors:
        """The tensors of weights that lie in a mapped file.

        Raises:
            torch.OutOfMemoryError: The device has not so much memory.
        """
        embedding = self._joined(weights.embedding)
        tied = weights.output is weights.embedding
        return DecoderTensors(
            embedding=embedding,
            layers=tuple(self._layer(layer) for layer in weights.layers),
            output_norm=self._vector(weights.output_norm),
            output=embedding if tied else self._joined(weights.output),
            frequencies=self.frequencies(config, weights.rope_factors),
        )

    def frequencies(
        self, config: DecoderConfig, factors: Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        """See `DecoderTensors`."""
        divisors = None if factors is None else factors.data.view(np.float32).ravel()
        made = frequencies(config, divisors)
        return tuple(torch.from_numpy(one).to(self._device) for one in made)

    def _layer(self, layer: LayerWeights) -> LayerTensors:
        biases = [one for one in (layer.q_bias, layer.k_bias, layer.v_bias) if one is not None]
        return LayerTensors(
            attn_norm=self._vector(layer.attn_norm),
            qkv=self._joined(layer.q, layer.k, layer.v),
            qkv_bias=self._bias(biases),
            q_norm=self._optional(layer.q_norm),
            k_norm=self._optional(layer.k_norm),
            output=self._joined(layer.output),
            attn_post_norm=self._optional(layer.post_attn_norm),
            ffn_norm=self._vector(layer.ffn_norm),
            gate_up=self._joined(layer.gate, layer.up),
            down=self._joined(layer.down),
            ffn_post_norm=self._optional(layer.post_ffn_norm),
        )

    def _joined(self, *parts: Tensor) -> torch.Tensor:
        """Matrices of equal width, one below the other."""
        rows = [part.rows for part in parts]
        out = torch.empty((sum(rows), parts[0].columns), dtype=self._dtype, device=self._device)
        for part, place in zip(parts, out.split(rows), strict=True):
            fill(place, part)
        return out

    def _bias(self, parts: list[Tensor]) -> torch.Tensor | None:
        if not parts:
            return None
        return torch.cat([self._vector(part) for part in parts]).to(self._dtype)

    def _vector(self, tensor: Tensor) -> torch.Tensor:
        out = torch.empty((1, tensor.columns), dtype=torch.float32, device=self._device)
        fill(out, tensor)
        return out.reshape(-1)

    def _optional(self, tensor: Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else self._vector(tensor)


def _bytes(tensors: list[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
