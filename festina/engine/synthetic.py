"""Steps with random tokens on a KV cache with random content: for profiles and benches.

Never zeros: multipliers and memories that see nothing but zeros draw less power.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from festina.engine.base import BLOCK_TOKENS, Batch, Chunk, Engine, LoadedModel
from festina.engine.profile_plan import Point
from festina.types import OperatingPoint, Sampling, SmPartition

_FILL_TOKENS = 128
_GREEDY = Sampling()


def fill_cache(
    engine: Engine,
    loaded: LoadedModel,
    partition: SmPartition,
    tokens: tuple[int, int],
    rng: np.random.Generator,
) -> None:
    """Put random content into the cache: a sequence is computed, and copied to all other blocks.

    Args:
        engine: Holds the model.
        loaded: The model.
        partition: Where to compute.
        tokens: Of that sequence, and of the part of the pool that is to be filled.
        rng: Of the tokens.
    """
    count, blocks = (-(-one // BLOCK_TOKENS) for one in tokens)
    first = np.arange(count, dtype=np.int32)
    vocabulary = loaded.shape.vocabulary
    for start in range(0, count * BLOCK_TOKENS, _FILL_TOKENS):
        new = min(_FILL_TOKENS, count * BLOCK_TOKENS - start)
        chunk = _chunk(first, start, new, vocabulary, rng, sampling=None)
        engine.step(Batch(loaded.model, (chunk,), OperatingPoint(0, partition.sms), partition))
    data = engine.export_blocks(loaded.model, first)
    for begin in range(count, blocks, count):
        table = np.arange(begin, min(begin + count, blocks), dtype=np.int32)
        engine.import_blocks(loaded.model, table, data[: len(table)])


def step_of(
    point: Point, loaded: LoadedModel, partition: SmPartition, rng: np.random.Generator
) -> Batch:
    """The step of a point; its sequences lie one after the other in the pool."""
    sequences, new = (point.tokens, 1) if point.phase == "decode" else (1, point.tokens)
    tables = np.arange(point.kv_tokens // BLOCK_TOKENS, dtype=np.int32).reshape(sequences, -1)
    vocabulary = loaded.shape.vocabulary
    chunks = tuple(_chunk(one, point.context, new, vocabulary, rng) for one in tables)
    at = OperatingPoint(point.clock_mhz, partition.sms)
    return Batch(loaded.model, chunks, at, partition)


def _chunk(
    table: NDArray[np.int32],
    start: int,
    count: int,
    vocabulary: int,
    rng: np.random.Generator,
    sampling: Sampling | None = _GREEDY,
) -> Chunk:
    ids = rng.integers(0, vocabulary, count, dtype=np.int32)
    blocks = table[: -(-(start + count) // BLOCK_TOKENS)]
    return Chunk(ids, start, blocks, sampling, output_index=0)
