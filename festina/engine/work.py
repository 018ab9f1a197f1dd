"""Flat batches: what a step hands to the decoder, and what the step costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from festina._core import CpuBatch as FlatBatch
from festina.engine.architecture import DecoderConfig
from festina.engine.base import BLOCK_TOKENS, Chunk, ModelShape
from festina.errors import EngineError

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class FlatStep:
    """The tokens of all chunks, one after the other; arrays are int32.

    Attributes:
        token_ids: (t,).
        batch: Where each token belongs.
        logit_rows: (r,) tokens whose logits are wanted: the last of each chunk that is sampled.
    """

    token_ids: Ints
    batch: FlatBatch
    logit_rows: Ints


def flatten(chunks: tuple[Chunk, ...], pool_blocks: int, vocabulary: int) -> FlatStep:
    """Lay chunks out flat.

    Raises:
        EngineError: See `check_chunks`.
    """
    check_chunks(chunks, pool_blocks, vocabulary)
    sizes = np.array([len(chunk.token_ids) for chunk in chunks], np.int32)
    ends = np.cumsum(sizes, dtype=np.int32)
    sampled = np.array([chunk.sampling is not None for chunk in chunks])
    tables = [0, *(len(chunk.blocks) for chunk in chunks)]
    batch = FlatBatch(
        positions=_joined(
            [np.arange(c.start, c.start + len(c.token_ids), dtype=np.int32) for c in chunks]
        ),
        sequences=np.repeat(np.arange(len(chunks), dtype=np.int32), sizes),
        blocks=_joined([chunk.blocks for chunk in chunks]),
        block_offsets=np.cumsum(tables, dtype=np.int32),
    )
    return FlatStep(_joined([c.token_ids for c in chunks]), batch, (ends - 1)[sampled])


def check_chunks(chunks: tuple[Chunk, ...], pool_blocks: int, vocabulary: int) -> None:
    """Whether chunks can be computed.

    Raises:
        EngineError: There are none, one is empty, names an unknown token, or its block table is
            too short or points outside the pool; `field` says which.
    """
    if not chunks:
        raise EngineError("no chunks", field="chunks", expected="at least one")
    for index, chunk in enumerate(chunks):
        _check(chunk, f"chunks[{index}]", pool_blocks, vocabulary)


def step_flops(chunks: tuple[Chunk, ...], shape: ModelShape, config: DecoderConfig) -> float:
    """Floating-point operations of a step: 2 per weight and token, and attention.

    The head multiplies only the tokens that are sampled; norms and rotations are left out.
    """
    tokens = sum(len(chunk.token_ids) for chunk in chunks)
    sampled = sum(chunk.sampling is not None for chunk in chunks)
    head = config.vocabulary * config.width
    per_pair = 4.0 * config.heads * config.head_dim
    pairs = sum(_key_reads(chunk, config) for chunk in chunks)
    return 2.0 * ((shape.parameters - head) * tokens + head * sampled) + per_pair * pairs


def step_bytes(chunks: tuple[Chunk, ...], shape: ModelShape, config: DecoderConfig) -> float:
    """Bytes of a step: the weights once, the keys and values seen once per chunk, and written."""
    per_layer = shape.kv_bytes_per_token / config.layers
    seen = 0
    written = 0
    for chunk in chunks:
        end = chunk.start + len(chunk.token_ids)
        written += len(chunk.token_ids)
        for layer in range(config.layers):
            near = config.window + len(chunk.token_ids) - 1
            seen += min(end, near) if config.is_local(layer) else end
    return shape.weight_bytes + per_layer * seen + float(shape.kv_bytes_per_token) * written


def _key_reads(chunk: Chunk, config: DecoderConfig) -> int:
    """Query-key pairs of a chunk over all layers."""
    keys = np.arange(chunk.start + 1, chunk.start + len(chunk.token_ids) + 1)
    local = sum(config.is_local(layer) for layer in range(config.layers))
    near = int(np.minimum(keys, config.window).sum()) if local else 0
    return (config.layers - local) * int(keys.sum()) + local * near


def _check(chunk: Chunk, field: str, pool_blocks: int, vocabulary: int) -> None:
    end = chunk.start + len(chunk.token_ids)
    if len(chunk.token_ids) == 0 or chunk.start < 0:
        raise EngineError("an empty chunk, or a negative start", field=field)
    if end > len(chunk.blocks) * BLOCK_TOKENS:
        raise EngineError(
            f"{len(chunk.blocks)} blocks do not hold {end} tokens",
            field=f"{field}.blocks",
            expected=f"at least {-(-end // BLOCK_TOKENS)}",
        )
    _check_range(chunk.blocks, pool_blocks, f"{field}.blocks")
    _check_range(chunk.token_ids, vocabulary, f"{field}.token_ids")


def _check_range(values: Ints, limit: int, field: str) -> None:
    if int(values.min()) < 0 or int(values.max()) >= limit:
        raise EngineError("out of range", field=field, expected=f"0 … {limit - 1}")


def _joined(parts: list[Ints]) -> Ints:
    return np.concatenate(parts, dtype=np.int32, casting="same_kind")
