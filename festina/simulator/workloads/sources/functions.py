"""Serverless functions: calls per minute of many, from hardly ever to steadily."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from festina.errors import BadRequestError
from festina.simulator.workloads.folder import trace_file
from festina.workload import table

FILE = "azure_functions_2019_rpm_min480-959.csv.gz"
MINUTES = 480
FIRST_MINUTE = 480
CALLS = (8, 28_800)
"""Functions with fewer calls in the eight hours show no pattern; with more, they would need a
cluster of their own."""
# Of the 110 functions (of 155 without a timer) that CALLS keeps: ln of the calls in eight hours,
# which range from 8 to 27,366; and how the calls of an active minute are spread.
_LN_CALLS = (4.78, 1.96)
_STAND_INS = 110
_CALLS_PER_ACTIVE_MINUTE_SHAPE = 0.5


def open_functions(traces: Path | None, rng: np.random.Generator) -> NDArray[Any]:
    """Calls per minute, int64[functions, 480], minute 480 of the day first; or stand-ins."""
    if traces is None:
        return _stand_in(rng)
    path = trace_file(traces, FILE)
    minutes = [str(FIRST_MINUTE + minute) for minute in range(MINUTES)]
    cells = {"trigger": table.NAME, **dict.fromkeys(minutes, table.COUNT)}
    columns = table.read_columns(path, cells)
    calls = np.stack([columns[minute] for minute in minutes], axis=1)
    total = calls.sum(axis=1)
    kept: NDArray[Any] = calls[
        (columns["trigger"] != "timer") & (total >= CALLS[0]) & (total <= CALLS[1])
    ]
    if not len(kept):
        raise BadRequestError(
            f"{path} has no function without a timer and with {CALLS[0]} to {CALLS[1]} calls",
            field="traces",
            expected="at least one",
        )
    return kept


def _stand_in(rng: np.random.Generator) -> NDArray[Any]:
    """Negative binomial counts: a rate per function, and minutes that cluster its calls."""
    calls = np.clip(np.exp(rng.normal(*_LN_CALLS, _STAND_INS)), *CALLS)
    shape = _CALLS_PER_ACTIVE_MINUTE_SHAPE * (1 + calls[:, None] / MINUTES)
    rates = rng.standard_gamma(np.repeat(shape, MINUTES, axis=1)) / shape
    return np.asarray(rng.poisson(rates * calls[:, None] / MINUTES))
