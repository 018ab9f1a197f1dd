"""What a simulation is fed with: deployments, and requests for them as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from festina.errors import BadRequestError

DRAIN_S = 300.0
"""Granted after the sending window."""

DRAIN_LOOP_S = 1800.0
"""The same where clients send their next request only after an answer."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model that the cluster serves.

    Attributes:
        name: Unique within the workload.
        shape: Which physics model it is (`festina.device.physics.MODELS`).
    """

    name: str
    shape: str


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests as columns of equal length n, by arrival.

    A request with `follows` ≥ 0 belongs to a closed loop: it is sent `arrival_ms` after the request
    of that (smaller) index ended. All others are sent at `arrival_ms`.

    Attributes:
        name: As in reports.
        deployments: The models; `model` indexes them.
        duration_s: Length of the sending window.
        synthetic: Whether this is a stand-in made without traces.
        arrival_ms: float64[n]; ascending among the requests that follow none.
        model: int32[n].
        input_tokens: int32[n], ≥ 1.
        cached_tokens: int32[n], < `input_tokens`: the prefix that a cache holds.
        output_tokens: int32[n], ≥ 1.
        follows: int32[n], -1 or the index of an earlier request.
        ttft_ms: float32[n]; objective.
        tbt_ms: float32[n]; objective.
        clipped: How many requests were shortened to their model's context.
    """

    name: str
    deployments: tuple[Deployment, ...]
    duration_s: float
    synthetic: bool
    arrival_ms: NDArray[np.float64]
    model: NDArray[np.int32]
    input_tokens: NDArray[np.int32]
    cached_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    follows: NDArray[np.int32]
    ttft_ms: NDArray[np.float32]
    tbt_ms: NDArray[np.float32]
    clipped: int = 0

    def __post_init__(self) -> None:
        """Refuses columns that break what is promised above.

        Raises:
            BadRequestError: `field` is `COLUMN[ROW]`.
        """
        self._same_lengths()
        opens = self.follows < 0
        times = self.arrival_ms
        self._all("arrival_ms", np.isfinite(times) & (times >= 0), "a time ≥ 0")
        steps = np.diff(times[opens], prepend=0.0)
        self._all("arrival_ms", _spread(opens, steps >= 0), "times in ascending order")
        models = (self.model >= 0) & (self.model < len(self.deployments))
        self._all("model", models, f"0 to {len(self.deployments) - 1}")
        self._all("input_tokens", self.input_tokens >= 1, "at least 1")
        self._all("output_tokens", self.output_tokens >= 1, "at least 1")
        cached = (self.cached_tokens >= 0) & (self.cached_tokens < self.input_tokens)
        self._all("cached_tokens", cached, "0 or more, fewer than input_tokens")
        earlier = self.follows < np.arange(len(self))
        self._all("follows", earlier & (self.follows >= -1), "-1 or an earlier request")
        self._all("ttft_ms", np.isfinite(self.ttft_ms) & (self.ttft_ms > 0), "more than 0")
        self._all("tbt_ms", np.isfinite(self.tbt_ms) & (self.tbt_ms > 0), "more than 0")

    @property
    def metered_s(self) -> float:
        """How long every policy is metered: the sending window and what is granted to end in.

        What is not done by then has failed. The same time for all, so that idle power counts
        alike.
        """
        loops = bool((self.follows >= 0).any())
        return self.duration_s + (DRAIN_LOOP_S if loops else DRAIN_S)

    def __len__(self) -> int:
        return len(self.arrival_ms)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Column name → column."""
        return {name: getattr(self, name) for name in _COLUMNS}

    def _same_lengths(self) -> None:
        for name, column in self.columns().items():
            if len(column) != len(self):
                raise BadRequestError("has another length", field=name, expected=f"{len(self)}")

    def _all(self, field: str, good: NDArray[np.bool_], expected: str) -> None:
        if not good.all():
            row = int(np.argmin(good))
            raise BadRequestError("is out of range", field=f"{field}[{row}]", expected=expected)


_COLUMNS = (
    "arrival_ms",
    "model",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "follows",
    "ttft_ms",
    "tbt_ms",
)


def _spread(where: NDArray[np.bool_], good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`good` of the chosen rows, laid over all rows; the others are good."""
    every = np.ones(len(where), np.bool_)
    every[where] = good
    return every
