"""What a model step has to do, in FLOPs and bytes. Fields broadcast as numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from festina.types import Phase

Array = NDArray[np.float64]


class WorkShape(Protocol):
    """What of a model decides its work; a `Decoder` has it."""

    @property
    def parameters(self) -> int:
        """Weights that a token multiplies with."""

    @property
    def weight_bytes(self) -> int:
        """Bytes read to run one token through all layers and the head."""

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token's keys and values occupy."""

    @property
    def attention_flops_per_pair(self) -> int:
        """FLOPs for one query token to attend to one cached token."""


@dataclass(frozen=True, slots=True)
class Work:
    """One step.

    Attributes:
        phase: Which latency formula holds; a step with any prefill chunk is a prefill.
        sequences: Sequences in the step.
        dense_flops: Multiplications with weights.
        attention_flops: Attention.
        weight_bytes: Weights read, once a step.
        kv_bytes: KV cache read and written.
    """

    phase: Phase
    sequences: Array
    dense_flops: Array
    attention_flops: Array
    weight_bytes: Array
    kv_bytes: Array

    @property
    def flops(self) -> Array:
        """All arithmetic of the step."""
        return self.dense_flops + self.attention_flops

    @property
    def bytes_moved(self) -> Array:
        """All bytes of the step."""
        return self.weight_bytes + self.kv_bytes

    def with_axis(self) -> Work:
        """The same work with one more axis at the end, to try it at many clocks at once."""
        return Work(
            phase=self.phase,
            sequences=self.sequences[..., None],
            dense_flops=self.dense_flops[..., None],
            attention_flops=self.attention_flops[..., None],
            weight_bytes=self.weight_bytes[..., None],
            kv_bytes=self.kv_bytes[..., None],
        )


def prefill_work(model: WorkShape, tokens: ArrayLike, cached: ArrayLike = 0) -> Work:
    """One sequence's chunk of `tokens` new tokens behind `cached` ones."""
    new, old = np.asarray(tokens, np.float64), np.asarray(cached, np.float64)
    return _work(model, Phase.PREFILL, np.float64(1), new, _prefill_pairs(new, old), new + old)


def decode_work(model: WorkShape, batch: ArrayLike, context: ArrayLike) -> Work:
    """One new token for each of `batch` sequences with `context` tokens each."""
    n, pairs = np.asarray(batch, np.float64), np.asarray(context, np.float64) + 1
    return _work(model, Phase.DECODE, n, n, n * pairs, n * pairs)


def step_work(model: WorkShape, chunks: Sequence[tuple[int, int]]) -> Work:
    """A step of mixed chunks.

    Args:
        model: Whose step it is.
        chunks: (new tokens, cached tokens) per sequence; one new token on a cache is a decode.
    """
    new, old = np.asarray(chunks, np.float64).T
    decode = bool(np.all((new == 1) & (old > 0)))
    return _work(
        model,
        Phase.DECODE if decode else Phase.PREFILL,
        np.float64(len(chunks)),
        new.sum(),
        _prefill_pairs(new, old).sum(),
        (new + old).sum(),
    )


def _prefill_pairs(new: Array, old: Array) -> Array:
    """Query-key pairs of causal attention."""
    return np.asarray(new * old + new * (new + 1.0) / 2.0)


def _work(
    model: WorkShape,
    phase: Phase,
    sequences: Array | np.float64,
    tokens: Array | np.float64,
    pairs: Array | np.float64,
    kv_tokens: Array | np.float64,
) -> Work:
    return Work(
        phase=phase,
        sequences=np.asarray(sequences),
        dense_flops=np.asarray(2.0 * model.parameters * tokens),
        attention_flops=np.asarray(model.attention_flops_per_pair * pairs),
        weight_bytes=np.asarray(np.float64(model.weight_bytes)),
        kv_bytes=np.asarray(model.kv_bytes_per_token * kv_tokens),
    )
