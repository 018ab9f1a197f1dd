"""Weights of a decoder, found in a file and checked against its sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from festina.engine.architecture import DecoderConfig
from festina.engine.base import ModelShape
from festina.engine.gguf_file import Tensor, TensorType
from festina.errors import UnsupportedModelError, WeightsError


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Weights of one layer; what an architecture lacks is None.

    Attributes:
        attn_norm: (1, width).
        q: (heads · head_dim, width).
        k: (kv_heads · head_dim, width).
        v: As `k`.
        output: (width, heads · head_dim).
        ffn_norm: (1, width).
        gate: (ff_width, width).
        up: As `gate`.
        down: (width, ff_width).
        q_norm: (1, head_dim).
        k_norm: (1, head_dim).
        post_attn_norm: (1, width).
        post_ffn_norm: (1, width).
        q_bias: (1, heads · head_dim).
        k_bias: (1, kv_heads · head_dim).
        v_bias: As `k_bias`.
    """

    attn_norm: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    output: Tensor
    ffn_norm: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor
    q_norm: Tensor | None
    k_norm: Tensor | None
    post_attn_norm: Tensor | None
    post_ffn_norm: Tensor | None
    q_bias: Tensor | None
    k_bias: Tensor | None
    v_bias: Tensor | None


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """Weights of a decoder; views of the mapped file.

    Attributes:
        embedding: (vocabulary, width).
        layers: One per layer.
        output_norm: (1, width).
        output: (vocabulary, width); the embedding where they are tied.
        rope_factors: (1, rope_dims / 2): what RoPE frequencies are divided by, or None.
    """

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    output_norm: Tensor
    output: Tensor
    rope_factors: Tensor | None


class TensorFile(Protocol):
    """Where weights are: a GGUF file, or what stands for one."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Name → tensor."""

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name.

        Raises:
            WeightsError: There is none.
        """


def read_weights(file: TensorFile, config: DecoderConfig) -> DecoderWeights:
    """The weights of the decoder in `file`, each of the shape that `config` gives.

    Raises:
        WeightsError: A tensor is missing or has another shape; `field` names it.
        UnsupportedModelError: A tensor is left over, so the model computes something else.
    """
    source = _TensorSource(file)
    width, head = config.width, config.head_dim
    queries, keys = config.heads * head, config.kv_heads * head
    qk_norm, post_norms, bias = config.qk_norm, config.post_norms, config.qkv_bias

    def layer(index: int) -> LayerWeights:
        take = source.under(f"blk.{index}.")
        return LayerWeights(
            attn_norm=take("attn_norm", 1, width),
            q=take("attn_q", queries, width),
            k=take("attn_k", keys, width),
            v=take("attn_v", keys, width),
            output=take("attn_output", width, queries),
            ffn_norm=take("ffn_norm", 1, width),
            gate=take("ffn_gate", config.ff_width, width),
            up=take("ffn_up", config.ff_width, width),
            down=take("ffn_down", width, config.ff_width),
            q_norm=take("attn_q_norm", 1, head) if qk_norm else None,
            k_norm=take("attn_k_norm", 1, head) if qk_norm else None,
            post_attn_norm=take("post_attention_norm", 1, width) if post_norms else None,
            post_ffn_norm=take("post_ffw_norm", 1, width) if post_norms else None,
            q_bias=take("attn_q", 1, queries, "bias") if bias else None,
            k_bias=take("attn_k", 1, keys, "bias") if bias else None,
            v_bias=take("attn_v", 1, keys, "bias") if bias else None,
        )

    top = source.under("")
    embedding = top("token_embd", config.vocabulary, width)
    tied = "output.weight" not in file.tensors
    factors = "rope_freqs.weight" in file.tensors
    weights = DecoderWeights(
        embedding=embedding,
        layers=tuple(layer(index) for index in range(config.layers)),
        output_norm=top("output_norm", 1, width),
        output=embedding if tied else top("output", config.vocabulary, width),
        rope_factors=top("rope_freqs", 1, config.rope_dims // 2) if factors else None,
    )
    source.finish()
    return weights


def model_shape(config: DecoderConfig, weights: DecoderWeights) -> ModelShape:
    """What scheduling and energy need to know of a decoder."""
    read = [tensor for layer in weights.layers for tensor in _matrices(layer)] + [weights.output]
    return ModelShape(
        parameters=sum(tensor.rows * tensor.columns for tensor in read),
        weight_bytes=sum(tensor.data.nbytes for tensor in read),
        kv_bytes_per_token=config.kv_bytes_per_token,
        context_tokens=config.context_tokens,
        vocabulary=config.vocabulary,
    )


def _matrices(layer: LayerWeights) -> tuple[Tensor, ...]:
    return (layer.q, layer.k, layer.v, layer.output, layer.gate, layer.up, layer.down)


class _TensorSource:
    """Takes tensors out of a file, each once, checking shapes."""

    def __init__(self, file: TensorFile) -> None:
        self._file = file
        self._taken: set[str] = set()

    def under(self, prefix: str) -> _Take:
        return _Take(self, prefix)

    def take(self, name: str, rows: int, columns: int) -> Tensor:
        tensor = self._file.tensor(name)
        if (tensor.rows, tensor.columns) != (rows, columns):
            raise WeightsError(
                f"shape ({tensor.rows}, {tensor.columns})",
                field=name,
                expected=f"({rows}, {columns})",
            )
        if rows == 1 and tensor.type is not TensorType.F32:
            raise UnsupportedModelError(
                f"a norm, bias or factor of type {tensor.type.name}", field=name, expected="F32"
            )
        self._taken.add(name)
        return tensor

    def finish(self) -> None:
        rest = sorted(self._file.tensors.keys() - self._taken)
        if rest:
            raise UnsupportedModelError(
                f"{len(rest)} tensors have no place in this architecture", field=rest[0]
            )


@dataclass(frozen=True, slots=True)
class _Take:
    source: _TensorSource
    prefix: str

    def __call__(self, name: str, rows: int, columns: int, part: str = "weight") -> Tensor:
        return self.source.take(f"{self.prefix}{name}.{part}", rows, columns)
