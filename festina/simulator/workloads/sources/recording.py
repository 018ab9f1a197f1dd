"""Arrivals with lengths over a fixed period, which may be repeated at other times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from festina.errors import BadRequestError
from festina.workload.trace import read_columns

Column = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Recording:
    """Requests of one period, as columns of equal length.

    Attributes:
        period_s: Length of the period.
        t_s: When, in [0, period_s).
        input_tokens: ≥ 1.
        output_tokens: ≥ 1.
        model: Which model is asked; zeros where the trace names none.
    """

    period_s: float
    t_s: Column
    input_tokens: Column
    output_tokens: Column
    model: Column

    def pick(self, rows: Column) -> Recording:
        """Some of the rows, by index or mask."""
        return Recording(
            self.period_s,
            self.t_s[rows],
            self.input_tokens[rows],
            self.output_tokens[rows],
            self.model[rows],
        )

    def copies(self, rng: np.random.Generator, times: float, *, shift: bool) -> list[Recording]:
        """`times` as much traffic: copies at random shifts in time, thinned to the whole.

        Shifts wrap around the period, so that each copy has the recorded mean rate. One copy never
        follows another in step, which would only make the same bursts higher.

        Args:
            rng: Draws the shifts and what is thinned out.
            times: > 0.
            shift: Whether the first copy is shifted, too.
        """
        count = math.ceil(times)
        found = []
        for copy in range(count):
            kept = self.pick(rng.random(len(self.t_s)) < times / count)
            by_s = rng.random() * self.period_s if shift or copy else 0.0
            found.append(kept.shifted(by_s))
        return found

    def tiled(self, times: int) -> list[Recording]:
        """The period `times` times in a row."""
        return [replace(self, t_s=self.t_s + tile * self.period_s) for tile in range(times)]

    def shifted(self, by_s: float) -> Recording:
        """The same, later by `by_s`; what would leave the period comes at its start."""
        return replace(self, t_s=(self.t_s + by_s) % self.period_s)


def read_recording(path: Path, period_s: float) -> Recording:
    """The first `period_s` of a trace, whatever models it names.

    Raises:
        BadRequestError: The file cannot be read or holds no such requests.
    """
    columns = read_columns(path)
    kept = columns.t_s < period_s
    if not kept.any():
        raise BadRequestError(f"{path} is empty", field="t_s", expected=f"times < {period_s:g}")
    return Recording(
        period_s,
        columns.t_s[kept],
        columns.input_tokens[kept],
        columns.output_tokens[kept],
        np.zeros(int(kept.sum()), np.int64),
    )


def join(parts: Sequence[Recording]) -> Recording:
    """All requests of the parts, one after the other."""
    return Recording(
        parts[0].period_s,
        np.concatenate([part.t_s for part in parts]),
        np.concatenate([part.input_tokens for part in parts]),
        np.concatenate([part.output_tokens for part in parts]),
        np.concatenate([part.model for part in parts]),
    )
