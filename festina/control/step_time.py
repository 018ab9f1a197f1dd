"""How long a step will take: learned from measured steps, on top of a prior (DESIGN 3, 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from festina import _core
from festina.types import OperatingPoint


@dataclass(frozen=True, slots=True)
class StepWork:
    """What one step of one model computes.

    Attributes:
        prefill_tokens: Prompt tokens over all its prefill chunks.
        decodes: Sequences that get one more token.
        context_tokens: Tokens already in the cache, over its decodes.
        cached_mean: Tokens already in the cache of a prompt token's sequence, on average.
    """

    prefill_tokens: int
    decodes: int
    context_tokens: int
    cached_mean: float = 0.0


class StepTime(Protocol):
    """Predicts and learns the duration of steps of one model on one device."""

    def cost(self, point: OperatingPoint) -> _core.StepCost:
        """What steps cost there, as the native rule takes it; valid until the next `learn`."""

    def learn(self, work: StepWork, point: OperatingPoint, latency_ms: float) -> None:
        """Take a measured duration into account. State stays bounded."""


def predict_ms(cost: _core.StepCost, work: StepWork) -> float:
    """Expected duration plus the estimate's own error, > 0, never falling in `work`."""
    key = (
        work.decodes,
        work.context_tokens / max(work.decodes, 1),
        work.prefill_tokens,
        work.cached_mean,
    )
    return cost.latency_ms(*key) * (1.0 + cost.spread(*key))


@dataclass(frozen=True, slots=True)
class StepTimePrior:
    """Coefficients to start from, all ≥ 0.

    Attributes:
        fixed_ms: Cost of any step: reading the weights, launching.
        prefill_token_ms: Per prompt token.
        decode_ms: Per decoding sequence.
        context_token_ms: Per token in the cache.
    """

    fixed_ms: float = 20.0
    prefill_token_ms: float = 2.0
    decode_ms: float = 2.0
    context_token_ms: float = 0.002


_SCALE = np.array([1.0, 64.0, 8.0, 2048.0])
"""Typical size of each feature, so that coefficients are comparable."""

_NOISE = 0.1
"""Relative standard deviation of a measured step around the model."""

_DRIFT = 0.03
"""Relative standard deviation of a coefficient's change from one step to the next."""

_FLOOR = 0.02
"""Least size of a coefficient, as a share of the largest."""


class LearnedStepTime:
    """t = a + b·prefill_tokens + c·decodes + d·context_tokens, by a Kalman filter.

    The coefficients are taken to wander a little with every step, so that it follows a machine
    whose speed changes; each variance is bounded, so that a long spell of one kind of step cannot
    blow up the others. Noise is relative: a 10 % miss weighs the same on a short and on a long
    step. One step moves the prediction by at most a factor of two, so an outlier does little.
    Coefficients are cut at 0, so that more work never looks cheaper. The operating point is
    ignored: this is the model of a device without clocks and partitions, or without a profile.

    Args:
        prior: Where to start.
    """

    def __init__(self, prior: StepTimePrior | None = None) -> None:
        start = prior or StepTimePrior()
        self._theta: NDArray[np.float64] = _SCALE * np.array(
            [start.fixed_ms, start.prefill_token_ms, start.decode_ms, start.context_token_ms]
        )
        self._floor_ms = _FLOOR * float(np.max(self._theta))
        self._covariance: NDArray[np.float64] = np.diag(self._size_ms() ** 2)
        self._error = 0.2
        self._coefficients = self._cut()

    def cost(self, point: OperatingPoint) -> _core.StepCost:  # noqa: ARG002
        """See `StepTime`."""
        return _core.StepCost.linear(*self._coefficients, self._error)

    def learn(self, work: StepWork, point: OperatingPoint, latency_ms: float) -> None:  # noqa: ARG002
        """See `StepTime`."""
        mean_ms = self._mean_ms(work)
        error = abs(latency_ms - mean_ms) / max(latency_ms, 0.01)
        self._error += 0.05 * (min(error, 1.0) - self._error)
        context = work.context_tokens + work.cached_mean
        x = np.array([1.0, work.prefill_tokens, work.decodes, context]) / _SCALE
        expected_ms = float(x @ self._theta)
        surprise_ms = min(max(latency_ms - expected_ms, -mean_ms / 2.0), mean_ms)
        px = self._covariance @ x
        gain = px / ((_NOISE * max(latency_ms, 0.01)) ** 2 + float(x @ px))
        self._theta = self._theta + gain * surprise_ms
        size_ms = self._size_ms()
        covariance = self._covariance - np.outer(gain, px) + np.diag((_DRIFT * size_ms) ** 2)
        shrink = np.minimum(1.0, 2.0 * size_ms / np.sqrt(np.diag(covariance)))
        self._covariance = covariance * np.outer(shrink, shrink)
        self._coefficients = self._cut()

    def _size_ms(self) -> NDArray[np.float64]:
        """Size of each coefficient for a typical step, for variances in proportion."""
        return np.maximum(np.abs(self._theta), self._floor_ms)

    def _cut(self) -> tuple[float, float, float, float]:
        fixed, prefill, decode, context = np.maximum(self._theta / _SCALE, 0.0).tolist()
        return fixed, prefill, decode, context

    def _mean_ms(self, work: StepWork) -> float:
        fixed, prefill, decode, context = self._coefficients
        return (
            fixed
            + prefill * work.prefill_tokens
            + decode * work.decodes
            + context * (work.context_tokens + work.cached_mean)
        )
