"""Sizes and rules of a decoder, read from a file and checked.

Four architectures, told apart by a `DecoderConfig` alone: `llama` (Llama 1-3, Mistral with its
sliding window, SmolLM), `qwen2` (biases of queries, keys and values), `qwen3` (norms of queries and
keys) and `gemma3` (these norms, norms after attention and feed-forward, sliding window in five of
six layers, GeGLU). All backends share this module.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import overload

import numpy as np

from festina.engine.gguf_file import ModelFile
from festina.errors import UnsupportedModelError, WeightsError

KV_VALUE_BYTES = 4
"""Bytes of one cached key or value component on a CPU (float32)."""


class RopeStyle(enum.IntEnum):
    """Which components RoPE turns together; the values are shared with `csrc/core`."""

    INTERLEAVED = 0
    """(0, 1), (2, 3), …: `llama` files hold Q and K permuted for this."""
    HALF_SPLIT = 1
    """(0, d/2), (1, d/2 + 1), …: all others."""


class Activation(enum.IntEnum):
    """Of the feed-forward gate; the values are shared with `csrc/core`."""

    SILU = 0
    GELU_TANH = 1


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Sizes and rules of a decoder.

    Attributes:
        architecture: GGUF's name of it.
        layers: Decoder layers.
        width: Components of a hidden state.
        heads: Query heads.
        kv_heads: Key and value heads; divides `heads`.
        head_dim: Components of one head.
        ff_width: Components inside the feed-forward.
        vocabulary: Token ids.
        context_tokens: Longest context it was trained for.
        norm_eps: Added to the mean square by RMSNorm.
        rope_style: Pairs that RoPE turns.
        rope_dims: Components of a head that RoPE turns.
        rope_theta: Base of the frequencies.
        rope_scale: Positions are divided by this.
        attention_scale: Applied to query-key products.
        activation: Of the feed-forward gate.
        embedding_scale: Applied to embeddings.
        window: Keys a local layer sees, itself included; 0 = no local layers.
        local_theta: `rope_theta` of local layers, whose positions are not scaled.
        local_period: Every `local_period`-th layer is global, all others are local; 0 = all are.
        qkv_bias: Queries, keys and values have biases.
        qk_norm: Queries and keys are normed per head before RoPE.
        post_norms: What attention and feed-forward add is normed.
    """

    architecture: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ff_width: int
    vocabulary: int
    context_tokens: int
    norm_eps: float
    rope_style: RopeStyle
    rope_dims: int
    rope_theta: float
    rope_scale: float
    attention_scale: float
    activation: Activation
    embedding_scale: float
    window: int
    local_theta: float
    local_period: int
    qkv_bias: bool
    qk_norm: bool
    post_norms: bool

    def is_local(self, layer: int) -> bool:
        """Whether `layer` sees only the last `window` keys."""
        if self.window == 0 or self.local_period == 0:
            return self.window > 0
        return (layer + 1) % self.local_period != 0

    @property
    def kv_bytes_per_token(self) -> int:
        """KV cache bytes of one token over all layers on a CPU."""
        return self.kv_values_per_token * KV_VALUE_BYTES

    @property
    def kv_values_per_token(self) -> int:
        """Components of the keys and values of one token over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class _Rules:
    """What tells an architecture from `llama`."""

    rope_style: RopeStyle = RopeStyle.HALF_SPLIT
    qkv_bias: bool = False
    qk_norm: bool = False
    gemma: bool = False


_ARCHITECTURES = MappingProxyType(
    {
        "llama": _Rules(RopeStyle.INTERLEAVED),
        "qwen2": _Rules(qkv_bias=True),
        "qwen3": _Rules(qk_norm=True),
        "gemma3": _Rules(qk_norm=True, gemma=True),
    }
)


def read_config(file: ModelFile) -> DecoderConfig:
    """Sizes and rules of the decoder in `file`.

    Raises:
        UnsupportedModelError: The architecture, or a rule of it, is not implemented.
        WeightsError: A key is missing or has an impossible value; `field` names it.
    """
    architecture = _get(file, "general.architecture", str)
    if architecture not in _ARCHITECTURES:
        raise UnsupportedModelError(
            f"architecture {architecture!r}",
            field="general.architecture",
            expected=" or ".join(_ARCHITECTURES),
        )
    rules = _ARCHITECTURES[architecture]
    gemma = rules.gemma
    prefix = architecture + "."
    _refuse(file, f"{prefix}expert_count", 0)
    _refuse(file, f"{prefix}attention.logit_scale", 1.0)
    _refuse(file, f"{prefix}final_logit_softcapping", 0.0)
    width = _positive(file, f"{prefix}embedding_length")
    heads = _positive(file, f"{prefix}attention.head_count")
    kv_heads = _positive(file, f"{prefix}attention.head_count_kv", heads)
    head_dim = _positive(file, f"{prefix}attention.key_length", width // heads)
    if heads % kv_heads:
        raise WeightsError(
            f"{kv_heads} of {heads} heads",
            field=f"{prefix}attention.head_count_kv",
            expected="a divisor of head_count",
        )
    if _positive(file, f"{prefix}attention.value_length", head_dim) != head_dim:
        raise UnsupportedModelError(
            "values are not as wide as keys", field=f"{prefix}attention.value_length"
        )
    rope_dims = _positive(file, f"{prefix}rope.dimension_count", head_dim)
    if rope_dims > head_dim or rope_dims % 2:
        raise WeightsError(
            f"{rope_dims}",
            field=f"{prefix}rope.dimension_count",
            expected=f"an even number up to {head_dim}",
        )
    embedding = file.tensor("token_embd.weight")
    layers = _positive(file, f"{prefix}block_count")
    gemma_27b = gemma and layers == 62  # its attention is scaled by the mean width of a head
    rope_theta = _positive_real(file, f"{prefix}rope.freq_base", 1e6 if gemma else 1e4)
    local_theta = 1e4 if gemma else rope_theta
    return DecoderConfig(
        architecture=architecture,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ff_width=_positive(file, f"{prefix}feed_forward_length"),
        vocabulary=embedding.rows,
        context_tokens=_positive(file, f"{prefix}context_length"),
        norm_eps=_positive_real(file, f"{prefix}attention.layer_norm_rms_epsilon"),
        rope_style=RopeStyle.HALF_SPLIT if file.rope_halves else rules.rope_style,
        rope_dims=rope_dims,
        rope_theta=rope_theta,
        rope_scale=_rope_scale(file, prefix),
        attention_scale=1.0 / math.sqrt(width / heads if gemma_27b else head_dim),
        activation=Activation.GELU_TANH if gemma else Activation.SILU,
        embedding_scale=math.sqrt(width) if gemma else 1.0,
        window=_window(file, prefix, gemma),
        local_theta=_positive_real(file, f"{prefix}rope.freq_base_swa", local_theta),
        local_period=_period(file, prefix) if gemma else 0,
        qkv_bias=rules.qkv_bias,
        qk_norm=rules.qk_norm,
        post_norms=gemma,
    )


def _window(file: ModelFile, prefix: str, gemma: bool) -> int:
    """Keys that local layers see. Qwen files may name a window that their models do not use."""
    key = f"{prefix}attention.sliding_window"
    if gemma:
        return _positive(file, key)
    if prefix == "llama." and key in file.metadata:  # Mistral
        return _positive(file, key)
    _refuse(file, key, 0)
    return 0


def _period(file: ModelFile, prefix: str) -> int:
    return _positive(file, f"{prefix}attention.sliding_window_pattern", 6)


@overload
def _get(file: ModelFile, key: str, kind: type[str]) -> str: ...
@overload
def _get(file: ModelFile, key: str, kind: type[int], default: int | None = None) -> int: ...
@overload
def _get(file: ModelFile, key: str, kind: type[float], default: float | None = None) -> float: ...
def _get(
    file: ModelFile,
    key: str,
    kind: type[str] | type[int] | type[float],
    default: float | None = None,
) -> str | float:
    value = file.metadata.get(key, default)
    if value is None:
        raise WeightsError("the key is missing", field=key, expected=kind.__name__)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise WeightsError(f"a {type(value).__name__}", field=key, expected=kind.__name__)
    return value


def _positive(file: ModelFile, key: str, default: int | None = None) -> int:
    value = _get(file, key, int, default)
    if value < 1:
        raise WeightsError(f"{value}", field=key, expected="a positive number")
    return value


def _positive_real(file: ModelFile, key: str, default: float | None = None) -> float:
    value = _get(file, key, float, default)
    if not 0 < value < math.inf:
        raise WeightsError(f"{value}", field=key, expected="a positive number")
    return value


def _rope_scale(file: ModelFile, prefix: str) -> float:
    kind = file.metadata.get(f"{prefix}rope.scaling.type", "none")
    if kind == "none":
        return 1.0
    if kind != "linear":
        raise UnsupportedModelError(
            f"{kind!r}", field=f"{prefix}rope.scaling.type", expected="none or linear"
        )
    return _positive_real(file, f"{prefix}rope.scaling.factor")


def _refuse(file: ModelFile, key: str, neutral: float) -> None:
    """A rule that is not implemented may only be present where it changes nothing."""
    value = file.metadata.get(key, neutral)
    if not np.array_equal(np.asarray(value), np.asarray(neutral)):
        raise UnsupportedModelError(f"{value!r} is not implemented", field=key)
