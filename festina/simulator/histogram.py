"""Latencies as counts over log-spaced bins, and percentiles of them."""

from __future__ import annotations

import math

import msgspec

from festina.errors import BadRequestError


class Percentiles(msgspec.Struct, frozen=True):
    """Of a latency, in ms; None where nothing was observed."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


class Histogram(msgspec.Struct, frozen=True):
    """Counts over log-spaced bins. Bin i is [edges_ms[i], edges_ms[i+1]).

    Observations outside the edges are counted in the first and last bin.

    Attributes:
        edges_ms: n+1 ascending edges.
        counts: n counts.
    """

    edges_ms: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuses edges that are not one more than the counts, positive and ascending.

        Raises:
            BadRequestError: `field` is `edges_ms` or `counts`.
        """
        if len(self.edges_ms) != len(self.counts) + 1:
            raise BadRequestError(
                "has another length", field="edges_ms", expected=f"{len(self.counts) + 1} edges"
            )
        pairs = zip(self.edges_ms, self.edges_ms[1:], strict=False)
        if self.edges_ms[0] <= 0 or any(low >= high for low, high in pairs):
            raise BadRequestError("is not ascending from above 0", field="edges_ms")
        if any(count < 0 for count in self.counts):
            raise BadRequestError("is negative", field="counts", expected="0 or more")

    @property
    def total(self) -> int:
        """Observations."""
        return sum(self.counts)

    def percentile(self, q: float) -> float | None:
        """The value that q % of the observations do not exceed, interpolated within its bin.

        Args:
            q: 0 to 100.
        """
        total = self.total
        if not total:
            return None
        rank, below = q / 100 * total, 0
        for index, count in enumerate(self.counts):
            if count and below + count >= rank:
                low, high = self.edges_ms[index], self.edges_ms[index + 1]
                return low * math.pow(high / low, (rank - below) / count)
            below += count
        return self.edges_ms[-1]

    def percentiles(self) -> Percentiles:
        """p50, p90 and p99."""
        return Percentiles(self.percentile(50), self.percentile(90), self.percentile(99))
