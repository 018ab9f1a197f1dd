"""Choosing the next token from logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from festina.types import Logprobs, Sampling

LOGPROB_MIN = -9999.0
"""Stands for anything less likely, minus infinity too, which JSON cannot tell."""
_SEED_MASK = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Chosen:
    """The next token of one sequence.

    Attributes:
        token_id: Which.
        logprobs: How likely it was; None unless that was asked for.
    """

    token_id: int
    logprobs: Logprobs | None = None


def sample(logits: NDArray[np.float32], sampling: Sampling, output_index: int) -> Chosen:
    """`choose`, and what `sampling` wants to know of the choice; same arguments."""
    token_id = choose(logits, sampling, output_index)
    return Chosen(token_id, tell(logits, token_id, sampling))


def tell(logits: NDArray[np.float32], token_id: int, sampling: Sampling) -> Logprobs | None:
    """How likely `token_id` was, if `sampling` asks for that.

    Args:
        logits: float32 (vocabulary,).
        token_id: The token that was chosen.
        sampling: How many of the likeliest to tell, the first of equals first.
    """
    if sampling.logprobs is None:
        return None
    below_best = logits.astype(np.float64) - float(logits.max())
    total = float(np.log(np.exp(below_best).sum()))
    top = _likeliest(logits, sampling.logprobs)
    told = [max(LOGPROB_MIN, float(below_best[index]) - total) for index in (token_id, *top)]
    return Logprobs(told[0], tuple(zip(top, told[1:], strict=True)))


def all_logprobs(chosen: Sequence[Chosen | None]) -> tuple[Logprobs | None, ...]:
    """Those of each chunk of a step; empty where none asks, as in nearly all steps."""
    told = tuple(None if one is None else one.logprobs for one in chosen)
    return told if any(one is not None for one in told) else ()


def choose(logits: NDArray[np.float32], sampling: Sampling, output_index: int) -> int:
    """The next token of one sequence.

    A draw depends on (logits, seed, output index) alone: the generator is counter-based, so neither
    preemption nor migration nor the company in a batch changes an output.

    Args:
        logits: float32 (vocabulary,).
        sampling: Temperature 0 takes the largest logit, the first of equals.
        output_index: Index of the token in the output.

    Returns:
        A token id.
    """
    if sampling.temperature == 0.0:
        return int(np.argmax(logits))
    below_best = logits.astype(np.float64) - float(logits.max())
    with np.errstate(over="ignore"):  # a tiny temperature is all but greedy: -inf has no weight
        weights = np.exp(below_best / sampling.temperature)
    generator = np.random.Philox(key=sampling.seed & _SEED_MASK, counter=output_index)
    draw = np.random.Generator(generator).random()
    if sampling.top_p >= 1.0:
        return _inverse(weights, draw)
    nucleus = _nucleus(weights, sampling.top_p)
    return int(nucleus[_inverse(weights[nucleus], draw)])


def _likeliest(logits: NDArray[np.float32], count: int) -> list[int]:
    """Indices of the `count` largest, the largest first, the first of equals."""
    count = min(count, len(logits))
    if count == 0:
        return []
    least = np.partition(logits, len(logits) - count)[len(logits) - count]
    candidates = np.flatnonzero(logits >= least)
    order = np.argsort(-logits[candidates], kind="stable")[:count]
    return [int(index) for index in candidates[order]]


def _nucleus(weights: NDArray[np.float64], top_p: float) -> NDArray[np.intp]:
    """The fewest tokens that hold `top_p` of the mass, likeliest first, the first of equals."""
    order = np.argsort(-weights, kind="stable")
    mass = np.cumsum(weights[order])
    kept = int(np.searchsorted(mass, top_p * mass[-1])) + 1
    return order[:kept]


def _inverse(weights: NDArray[np.float64], draw: float) -> int:
    """The index at which the cumulated weights pass `draw` of their sum."""
    mass = np.cumsum(weights)
    return min(int(np.searchsorted(mass, draw * mass[-1], side="right")), len(mass) - 1)
