"""When requests come: renewal processes, run in operational time where the rate changes.

A unit-mean renewal process in operational time (the integral of the rate), mapped back to the
clock, keeps both the rate and the burstiness. Restarting the process in each window of constant
rate would overshoot the rate, since the first interval of a bursty process is longer than a fresh
draw; for the same reason every process here starts in equilibrium.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Intervals:
    """The distribution of unit-mean intervals.

    Attributes:
        kind: Which family.
        shape: Its shape parameter, > 0; both families are Poisson at 1, burstier below.
    """

    kind: Literal["Gamma", "Weibull"]
    shape: float

    @classmethod
    def gamma(cls, cv: float) -> Intervals:
        """Gamma intervals with this coefficient of variation."""
        return cls("Gamma", 1 / cv**2)

    def draw(self, rng: np.random.Generator, size: int) -> Floats:
        """Fresh intervals."""
        if self.kind == "Gamma":
            return rng.standard_gamma(self.shape, size) / self.shape
        return rng.weibull(self.shape, size) / math.gamma(1 + 1 / self.shape)

    def first(self, rng: np.random.Generator) -> float:
        """Time to the first event of a process that has run for ever.

        The interval that covers a random moment is drawn by its length; the moment lies uniformly
        in it.
        """
        if self.kind == "Gamma":
            covering = rng.standard_gamma(self.shape + 1) / self.shape
        else:
            power = rng.standard_gamma(1 + 1 / self.shape) ** (1 / self.shape)
            covering = power / math.gamma(1 + 1 / self.shape)
        return float(covering * rng.random())


POISSON = Intervals("Gamma", 1.0)


@dataclass(frozen=True, slots=True)
class RateCurve:
    """A rate that is constant between edges.

    Attributes:
        edges_s: float64[n + 1], ascending from 0.
        rate: float64[n], events per second, ≥ 0.
    """

    edges_s: Floats
    rate: Floats

    @property
    def operational(self) -> Floats:
        """float64[n + 1]: events expected before each edge."""
        return np.concatenate([[0.0], np.cumsum(self.rate * np.diff(self.edges_s))])

    def times_s(self, operational: Floats) -> Floats:
        """When these operational times, in [0, total), come on the clock."""
        return np.interp(operational, self.operational, self.edges_s)


def renew(rng: np.random.Generator, intervals: Intervals, total: float) -> Floats:
    """Operational times, ascending in [0, total), of one process in equilibrium."""
    return renew_varying(rng, [intervals], [total])


def renew_varying(
    rng: np.random.Generator, intervals: Sequence[Intervals], ends: Sequence[float]
) -> Floats:
    """`renew` with intervals that change: those that start in window w are of `intervals[w]`.

    Args:
        rng: Draws.
        intervals: n windows.
        ends: Operational time at the end of each window, ascending.
    """
    at = intervals[0].first(rng)
    pieces: list[Floats] = []
    for kind, end in zip(intervals, ends, strict=True):
        while at < end:
            size = 8 + int((end - at) * 1.1)
            times = at + np.concatenate([[0.0], np.cumsum(kind.draw(rng, size))])
            inside = int(np.searchsorted(times, end))
            pieces.append(times[: min(inside, size)])
            at = float(times[min(inside, size)])
    return np.concatenate(pieces) if pieces else np.empty(0)


def merge(times: Sequence[Floats]) -> tuple[Floats, NDArray[np.int64]]:
    """Events of several processes as columns: when, and which process; not sorted."""
    sizes = [len(each) for each in times]
    return np.concatenate(times), np.repeat(np.arange(len(times)), sizes)
