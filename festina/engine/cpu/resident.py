"""One deployment in memory: mapped weights, its KV pool, and the decoder that walks both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from festina.engine.architecture import Activation, DecoderConfig, RopeStyle
from festina.engine.base import BLOCK_TOKENS, ModelShape
from festina.engine.cpu import kernel_types
from festina.engine.cpu.kernel_types import Decoder, Floats, Weight
from festina.engine.cpu.kernels import make_decoder
from festina.engine.gguf_file import Tensor
from festina.engine.kv_copy import BlockPool, KvMemory
from festina.engine.kv_layout import KvLayout
from festina.engine.rope import frequencies
from festina.engine.weights import DecoderWeights, LayerWeights
from festina.errors import UnsupportedModelError

_GLOBAL, _LOCAL = 0, 1  # kinds of rotation, in the order of `frequencies`


@dataclass(frozen=True, slots=True)
class KvPool:
    """Cached keys and values of all sequences of a deployment. Pages are touched when first used.

    Attributes:
        floats: float32 (n,): all keys, then all values; both are views of it.
        keys: float32 (layers, blocks, kv_heads, head_dim, BLOCK_TOKENS).
        values: float32 (layers, blocks, kv_heads, BLOCK_TOKENS, head_dim).
    """

    floats: Floats
    keys: Floats
    values: Floats

    @classmethod
    def of(cls, config: DecoderConfig, blocks: int) -> KvPool:
        """An empty pool for a decoder.

        Raises:
            MemoryError: The machine has not so much memory.
        """
        head = (config.layers, blocks, config.kv_heads)
        size = math.prod(head) * config.head_dim * BLOCK_TOKENS
        floats = np.zeros(2 * size, np.float32)
        return cls(
            floats,
            floats[:size].reshape(*head, config.head_dim, BLOCK_TOKENS),
            floats[size:].reshape(*head, BLOCK_TOKENS, config.head_dim),
        )

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return int(self.keys.shape[1])

    @property
    def content(self) -> BlockPool:
        """The same as blocks to copy: per block the keys of every layer, then the values."""
        layers, blocks = self.keys.shape[:2]
        piece_bytes = self.keys[0, 0].nbytes
        layout = KvLayout.planar(2 * layers, blocks, piece_bytes)
        return BlockPool(KvMemory.of_array(self.floats), layout)


@dataclass(frozen=True, slots=True)
class Resident:
    """What the engine holds of a deployment.

    Attributes:
        config: Its decoder.
        shape: Its sizes, with the context the deployment allows.
        pool: Its KV pool.
        decoder: Runs it.
    """

    config: DecoderConfig
    shape: ModelShape
    pool: KvPool
    decoder: Decoder


def build_decoder(
    isa: str, config: DecoderConfig, weights: DecoderWeights, pool: KvPool
) -> Decoder:
    """A decoder over mapped weights and `pool`, both of which it keeps alive.

    Args:
        isa: Instruction set of the kernels (`kernels.available_isas`); "" takes the best.
        config: Sizes and rules.
        weights: Views of the mapped file.
        pool: Made for `config`.

    Raises:
        ConfigError: This machine has no such kernels.
        UnsupportedModelError: No kernel reads a weight's type, or adds biases.
    """
    if config.qkv_bias:
        raise UnsupportedModelError(
            f"{config.architecture} has biases, which the CPU engine does not add",
            field="general.architecture",
            expected="llama, qwen3 or gemma3, or a GPU",
        )
    factors = _optional_vector(weights.rope_factors)
    shape = kernel_types.DecoderShape(
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        norm_eps=config.norm_eps,
        attention_scale=config.attention_scale,
        embedding_scale=config.embedding_scale,
        activation="gelu_tanh" if config.activation is Activation.GELU_TANH else "silu",
        rope_style="half_split" if config.rope_style is RopeStyle.HALF_SPLIT else "interleaved",
        frequencies=tuple(frequencies(config, factors)),
    )
    embedding = _matrix(weights.embedding)
    tied = weights.output is weights.embedding
    views = kernel_types.DecoderWeights(
        embedding=embedding,
        output=embedding if tied else _matrix(weights.output),
        output_norm=_vector(weights.output_norm),
        layers=tuple(
            _layer(layer, config.window if config.is_local(index) else 0)
            for index, layer in enumerate(weights.layers)
        ),
    )
    return make_decoder(isa, shape, views, pool.keys, pool.values)


def _layer(layer: LayerWeights, window: int) -> kernel_types.DecoderLayer:
    return kernel_types.DecoderLayer(
        q=_matrix(layer.q),
        k=_matrix(layer.k),
        v=_matrix(layer.v),
        o=_matrix(layer.output),
        gate=_matrix(layer.gate),
        up=_matrix(layer.up),
        down=_matrix(layer.down),
        attn_norm=_vector(layer.attn_norm),
        ffn_norm=_vector(layer.ffn_norm),
        q_norm=_optional_vector(layer.q_norm),
        k_norm=_optional_vector(layer.k_norm),
        attn_post_norm=_optional_vector(layer.post_attn_norm),
        ffn_post_norm=_optional_vector(layer.post_ffn_norm),
        window=window,
        rope=_LOCAL if window else _GLOBAL,
    )


def _matrix(tensor: Tensor) -> Weight:
    return Weight(tensor.data, int(tensor.type), tensor.rows, tensor.columns)


def _vector(tensor: Tensor) -> Floats:
    return tensor.data.view(np.float32).ravel()


def _optional_vector(tensor: Tensor | None) -> Floats | None:
    return None if tensor is None else _vector(tensor)
