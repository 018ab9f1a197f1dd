"""Random weights of a published shape, for profiles and benches: a step takes as long as any other.

Never zeros: multipliers and memory that see nothing but zeros draw less power.
"""

from __future__ import annotations

import math

import torch

from festina.device.physics import Decoder
from festina.engine.architecture import Activation, DecoderConfig, RopeStyle
from festina.engine.cuda.tensors import DecoderTensors, LayerTensors, Loader

_SEED = 20240601
_NORM_EPS = 1e-5
_ROPE_THETA = 5e5
_BIASED = "qwen-"  # Qwen 2 and 2.5


def random_config(shape: Decoder) -> DecoderConfig:
    """Sizes of a shape, with the rules of a Llama, or of a Qwen 2 where it is one."""
    biased = shape.name.startswith(_BIASED)
    return DecoderConfig(
        architecture="qwen2" if biased else "llama",
        layers=shape.layers,
        width=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_size,
        ff_width=shape.feed_forward,
        vocabulary=shape.vocabulary,
        context_tokens=shape.context_tokens,
        norm_eps=_NORM_EPS,
        rope_style=RopeStyle.HALF_SPLIT,
        rope_dims=shape.head_size,
        rope_theta=_ROPE_THETA,
        rope_scale=1.0,
        attention_scale=1.0 / math.sqrt(shape.head_size),
        activation=Activation.SILU,
        embedding_scale=1.0,
        window=0,
        local_theta=_ROPE_THETA,
        local_period=0,
        qkv_bias=biased,
        qk_norm=False,
        post_norms=False,
    )


def random_tensors(
    config: DecoderConfig, device: torch.device, dtype: torch.dtype, *, tied: bool
) -> DecoderTensors:
    """Normal weights that keep the scale of what they multiply; the same on every call.

    Raises:
        torch.OutOfMemoryError: The device has not so much memory.
    """
    generator = torch.Generator(device).manual_seed(_SEED)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        out = torch.empty((rows, columns), dtype=dtype, device=device)
        return out.normal_(0.0, columns**-0.5, generator=generator)

    def ones(size: int) -> torch.Tensor:
        return torch.ones(size, dtype=torch.float32, device=device)

    width, queries = config.width, config.heads * config.head_dim
    rows = queries + 2 * config.kv_heads * config.head_dim

    def layer() -> LayerTensors:
        return LayerTensors(
            attn_norm=ones(width),
            qkv=matrix(rows, width),
            qkv_bias=matrix(1, rows).reshape(-1) if config.qkv_bias else None,
            q_norm=None,
            k_norm=None,
            output=matrix(width, queries),
            attn_post_norm=None,
            ffn_norm=ones(width),
            gate_up=matrix(2 * config.ff_width, width),
            down=matrix(width, config.ff_width),
            ffn_post_norm=None,
        )

    embedding = matrix(config.vocabulary, width)
    return DecoderTensors(
        embedding=embedding,
        layers=tuple(layer() for _ in range(config.layers)),
        output_norm=ones(width),
        output=embedding if tied else matrix(config.vocabulary, width),
        frequencies=Loader(device, dtype).frequencies(config, None),
    )
