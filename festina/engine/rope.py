"""Inverse frequencies of rotary position embedding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from festina.engine.architecture import DecoderConfig


def frequencies(
    config: DecoderConfig, factors: NDArray[np.float32] | None
) -> list[NDArray[np.float32]]:
    """Inverse frequencies, float32 (rope_dims / 2,): of global layers, then of local ones if any.

    `factors` (rope_dims / 2,) divide those of global layers, where a model has some.

    Computed in float32 as the models' reference implementations do, so that angles agree.
    """
    whole = _inverse(config, config.rope_theta) / np.float32(config.rope_scale)
    if factors is not None:
        whole /= factors
    return [whole, _inverse(config, config.local_theta)] if config.window else [whole]


def _inverse(config: DecoderConfig, theta: float) -> NDArray[np.float32]:
    exponents = np.arange(0, config.rope_dims, 2, dtype=np.float32) / np.float32(config.rope_dims)
    powers: NDArray[np.float32] = np.power(np.float32(theta), exponents, dtype=np.float32)
    return np.float32(1.0) / powers
