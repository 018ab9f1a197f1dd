"""From what a deployment's `weights` mean to a decoder on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from festina.device.physics import model_named
from festina.engine import models
from festina.engine.architecture import DecoderConfig, read_config
from festina.engine.base import ModelShape, Tokenizer
from festina.engine.cuda.attention import Attention, TorchSingle
from festina.engine.cuda.decoder import Decoder
from festina.engine.cuda.native import NativeSingle
from festina.engine.cuda.native_ops import NativeOps
from festina.engine.cuda.ops import TorchOps
from festina.engine.cuda.pool import KEY_GROUP, KvPool
from festina.engine.cuda.random_weights import random_config, random_tensors
from festina.engine.cuda.tensors import DecoderTensors, Loader
from festina.engine.model_file import open_tokenizer, open_weights
from festina.engine.simulated_tokenizer import SimulatedTokenizer
from festina.engine.weights import model_shape, read_weights
from festina.engine.weights_name import RANDOM_PREFIX
from festina.errors import UnsupportedModelError

Kernels = Literal["device", "host", "torch"]
"""Our kernels on a GPU; their bodies as host code; plain tensor operations on any device."""

HEAD_DIM_MAX = 256


@dataclass(frozen=True, slots=True)
class Source:
    """A model that is about to be loaded.

    Attributes:
        config: Its sizes and rules.
        shape: Its sizes, as its file has them.
        tokenizer: Its tokenizer; bytes where weights are random.
        tensors: Makes its weights on a device, in a type.
    """

    config: DecoderConfig
    shape: ModelShape
    tokenizer: Tokenizer
    tensors: Callable[[torch.device, torch.dtype], DecoderTensors]
    tied: bool

    @property
    def weights_resident(self) -> int:
        """Weights that take memory: those of `shape`, and an embedding of its own."""
        embedding = 0 if self.tied else self.config.vocabulary * self.config.width
        return self.shape.parameters + embedding


def open_source(weights: str, models_dir: Path | None) -> Source:
    """A file of weights, or `random:` and the name of a shape.

    Raises:
        WeightsError: The file is missing, truncated or inconsistent.
        UnsupportedModelError: Its architecture or quantisation is not implemented.
    """
    if weights.startswith(RANDOM_PREFIX):
        source = _random(weights.removeprefix(RANDOM_PREFIX))
    else:
        source = _file(models.resolve(weights, models_dir))
    if source.config.head_dim % KEY_GROUP or source.config.head_dim > HEAD_DIM_MAX:
        raise UnsupportedModelError(
            f"heads of {source.config.head_dim}",
            field="head_dim",
            expected=f"a multiple of {KEY_GROUP} up to {HEAD_DIM_MAX}",
        )
    return source


def build_decoder(
    config: DecoderConfig, tensors: DecoderTensors, pool: KvPool, kernels: Kernels
) -> Decoder:
    """A decoder over weights and a pool."""
    if kernels == "torch":
        plain = Attention(config, pool, TorchSingle(config, pool))
        return Decoder(config, tensors, TorchOps(config, pool), plain)
    on_device = kernels == "device"
    single = NativeSingle(config, pool, on_device=on_device)
    ops = NativeOps(config, pool, on_device=on_device)
    return Decoder(config, tensors, ops, Attention(config, pool, single))


def _file(path: Path) -> Source:
    file = open_weights(path)
    config = read_config(file)
    weights = read_weights(file, config)
    return Source(
        config=config,
        shape=model_shape(config, weights),
        tokenizer=open_tokenizer(file, config),
        tensors=lambda device, dtype: Loader(device, dtype).load(config, weights),
        tied=weights.output is weights.embedding,
    )


def _random(name: str) -> Source:
    shape = model_named(name)
    config = random_config(shape)
    return Source(
        config=config,
        shape=ModelShape(
            parameters=shape.parameters,
            weight_bytes=shape.weight_bytes,
            kv_bytes_per_token=shape.kv_bytes_per_token,
            context_tokens=shape.context_tokens,
            vocabulary=shape.vocabulary,
        ),
        tokenizer=SimulatedTokenizer(),
        tensors=lambda device, dtype: random_tensors(config, device, dtype, tied=shape.tied),
        tied=shape.tied,
    )
