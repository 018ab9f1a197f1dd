"""Which models a cluster serves, and how popular they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from festina.simulator.workload import Deployment

MODELS_PER_GPU = 4
SHAPES = (
    "llama-3b",
    "llama-8b",
    "llama-8b",
    "qwen-14b",
    "llama-8b",
    "llama-3b",
    "yi-9b",
    "llama-8b",
)
"""Sizes cycle through these: 3B, 8B, 8B, 14B, 8B, 3B, 9B, 8B."""


def cycle_models(count: int) -> tuple[Deployment, ...]:
    """`count` deployments whose shapes cycle through `SHAPES`, named by index and shape."""
    shapes = [SHAPES[index % len(SHAPES)] for index in range(count)]
    return tuple(Deployment(f"m{index:02d}-{shape}", shape) for index, shape in enumerate(shapes))


def zipf_shares(rng: np.random.Generator, count: int, exponent: float) -> NDArray[np.float64]:
    """Shares of traffic ∝ rank^-exponent, sum 1, with the ranks shuffled over the models."""
    weights = np.arange(1, count + 1) ** -exponent
    return np.asarray(rng.permutation(weights / weights.sum()))
