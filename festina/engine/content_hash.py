"""A rolling hash of a token sequence: same content, same hash, however it was cut into steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MULTIPLIER = 6364136223846793005  # Knuth's MMIX generator; odd, hence invertible mod 2^64
_INVERSE = pow(_MULTIPLIER, -1, 2**64)
_WORD = 2**64 - 1


def extend_one(state: int, token_id: int) -> int:
    """Hash after one more token: s ← M·s + token + 1, modulo 2^64."""
    return (state * _MULTIPLIER + token_id + 1) & _WORD


def extend(state: int, token_ids: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Hash after each of `token_ids`, uint64 (n,): `extend_one` n times.

    Unrolled as s_i = M^i·(s_0 + Σ_j M^-j·(token_j + 1)), which numpy computes without a loop.
    """
    count = len(token_ids)
    powers = np.cumprod(np.full(count, _MULTIPLIER, np.uint64))
    inverses = np.cumprod(np.full(count, _INVERSE, np.uint64))
    terms = inverses * (token_ids.astype(np.uint64) + np.uint64(1))
    sums = np.cumsum(terms, dtype=np.uint64) + np.uint64(state)
    return np.asarray(powers * sums, np.uint64)


def pick(state: int, draw: int, choices: int) -> int:
    """An index below `choices`, from the state and the seed of a draw (splitmix64's finaliser)."""
    z = (state ^ (draw * 0x9E3779B97F4A7C15)) & _WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return (z ^ (z >> 31)) % choices
