"""Inverse frequencies of rotary position embedding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from festina.engine.architecture import DecoderConfig
from festina.engine.weights import DecoderWeights


def frequencies(config: DecoderConfig, weights: DecoderWeights) -> list[NDArray[np.float32]]:
    """Inverse frequencies, float32 (rope_dims / 2,): of global layers, then of local ones if any.

    Computed in float32 as the models' reference implementations do, so that angles agree.
    """
    whole = _inverse(config, config.rope_theta) / np.float32(config.rope_scale)
    if weights.rope_factors is not None:
        whole /= weights.rope_factors.data.view(np.float32).ravel()
    return [whole, _inverse(config, config.local_theta)] if config.window else [whole]


def _inverse(config: DecoderConfig, theta: float) -> NDArray[np.float32]:
    exponents = np.arange(0, config.rope_dims, 2, dtype=np.float32) / np.float32(config.rope_dims)
    powers: NDArray[np.float32] = np.power(np.float32(theta), exponents, dtype=np.float32)
    return np.float32(1.0) / powers
