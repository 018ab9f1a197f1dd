"""Sizes of a model that is not loaded: what decides its work, and what it takes of a memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from festina.device import physics
from festina.engine import models
from festina.engine.architecture import read_config
from festina.engine.base import ModelShape
from festina.engine.model_file import open_weights
from festina.engine.weights import model_shape, read_weights
from festina.engine.weights_name import shape_name


@dataclass(frozen=True, slots=True)
class WorkSizes:
    """Sizes of a decoder; what physics needs to tell its work (`physics.WorkShape`).

    Attributes:
        parameters: Weights that a token multiplies with.
        weight_bytes: Bytes read to run one token through all layers and the head.
        resident_bytes: Bytes that the weights occupy.
        kv_bytes_per_token: KV cache of one token over all layers.
        attention_flops_per_pair: FLOPs for one query token to attend to one cached token.
        context_tokens: Longest prompt plus output.
    """

    parameters: int
    weight_bytes: int
    resident_bytes: int
    kv_bytes_per_token: int
    attention_flops_per_pair: int
    context_tokens: int

    def with_shape(self, shape: ModelShape) -> WorkSizes:
        """The same model as an engine holds it."""
        return replace(
            self,
            parameters=shape.parameters,
            weight_bytes=shape.weight_bytes,
            kv_bytes_per_token=shape.kv_bytes_per_token,
        )


def sizes_of(weights: str, models_dir: Path | None = None) -> WorkSizes:
    """Sizes of a deployment's `weights`, in bf16 where a file has them packed.

    Args:
        weights: A shape (`sim:…`, `random:…`), a known model, or a GGUF file.
        models_dir: Where pulled models are; None takes the user's cache folder.

    Raises:
        UnsupportedModelError: No such shape, or an architecture that is not implemented.
        WeightsError: The file is absent or damaged.
    """
    if name := shape_name(weights):
        decoder = physics.model_named(name)
        return WorkSizes(
            parameters=decoder.parameters,
            weight_bytes=decoder.weight_bytes,
            resident_bytes=decoder.resident_bytes,
            kv_bytes_per_token=decoder.kv_bytes_per_token,
            attention_flops_per_pair=decoder.attention_flops_per_pair,
            context_tokens=decoder.context_tokens,
        )
    file = open_weights(models.resolve(weights, models_dir))
    config = read_config(file)
    shape = model_shape(config, read_weights(file, config))
    return WorkSizes(
        parameters=shape.parameters,
        weight_bytes=2 * shape.parameters,
        resident_bytes=2 * shape.parameters,
        kv_bytes_per_token=4 * config.layers * config.kv_heads * config.head_dim,
        attention_flops_per_pair=4 * config.layers * config.heads * config.head_dim,
        context_tokens=shape.context_tokens,
    )
