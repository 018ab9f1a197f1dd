"""Choosing the next token from logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from festina.types import Sampling

_SEED_MASK = 2**64 - 1


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
