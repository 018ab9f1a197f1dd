"""How long outputs will be, per model, from those that have finished (paper section 3.3)."""

from __future__ import annotations

import math

PADDING = 0.05
"""Share added to a prediction (paper section 3.3: 5 % padding)."""

_BINS_PER_OCTAVE = 4
_BINS = 20 * _BINS_PER_OCTAVE + 1


class LengthPredictor:
    """Quantile of recent output lengths of one model, in a decaying histogram of log-spaced bins.

    State is 81 numbers whatever has been seen. Bins are a fifth of an octave wide or less, so a
    prediction is within 19 % of the exact quantile.

    Args:
        quantile: Share of requests that should stay within the prediction, in (0, 1).
        memory: Weight that a finished request keeps after the next one, in (0, 1).
        samples_min: Below this many finished requests nothing is predicted.
    """

    def __init__(self, quantile: float = 0.9, memory: float = 0.995, samples_min: int = 8) -> None:
        self._quantile = quantile
        self._memory = memory
        self._samples_min = samples_min
        self._samples = 0
        self._weights = [0.0] * _BINS
        self._unit = 1.0

    def observe(self, output_tokens: int) -> None:
        """A request has finished with so many tokens."""
        self._samples += 1
        # Growing the unit of new samples instead of shrinking the old ones keeps this O(1).
        self._unit /= self._memory
        self._weights[_bin(output_tokens)] += self._unit
        if self._unit > 1e100:
            self._weights = [weight / self._unit for weight in self._weights]
            self._unit = 1.0

    def predict(self, max_tokens: int, generated: int = 0) -> int:
        """Padded quantile of the final length, given that `generated` tokens are out already.

        Returns:
            Between generated + 1 and `max_tokens` (or `max_tokens` when nothing is known).
        """
        if self._samples < self._samples_min:
            return max_tokens
        first = _bin(generated + 1)
        tail = self._weights[first:]
        mass = sum(tail)
        if mass <= 0.0:
            return max_tokens
        seen = 0.0
        for offset, weight in enumerate(tail):
            seen += weight
            if seen >= self._quantile * mass:
                length = math.ceil(_upper(first + offset) * (1.0 + PADDING))
                return min(max_tokens, max(length, generated + 1))
        return max_tokens


def _bin(tokens: int) -> int:
    return min(_BINS - 1, math.ceil(math.log2(max(tokens, 1)) * _BINS_PER_OCTAVE - 1e-9))


def _upper(index: int) -> float:
    return float(2.0 ** (index / _BINS_PER_OCTAVE))
