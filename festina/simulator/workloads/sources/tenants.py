"""Tenants of a language model service over a day: how often and how burstily each asks, and what.

The rate and its burstiness are given for 144 windows of ten minutes, lengths for four quarters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from festina.errors import BadRequestError
from festina.simulator.workloads.arrivals import Intervals
from festina.simulator.workloads.folder import trace_file
from festina.workload import table

RATES_FILE = "servegen_client_rates.csv.gz"
LENGTHS_FILE = "servegen_client_length_quantiles.csv.gz"
WINDOWS = 144
WINDOW_S = 600
QUARTERS = 4
DAY = 1
DAY_S = 86_400
LEVELS = (
    [0.001, 0.01] + [step / 20 for step in range(1, 19)] + [0.925, 0.95, 0.975, 0.99, 0.999, 1.0]
)
"""Levels of the length quantiles."""
_KINDS: tuple[Literal["Gamma"], Literal["Weibull"]] = ("Gamma", "Weibull")
_SHAPE = replace(table.NUMBER, least=1e-9, expected="a number > 0")
_COLUMNS = [*(f"q{level:g}" for level in LEVELS[:-1]), "max"]


@dataclass(frozen=True, slots=True)
class Tenant:
    """One of many who share a service.

    Attributes:
        rate: float64[144], requests/s by window.
        intervals: Of each window.
        input_tokens: float64[4, 26], quantiles at `LEVELS` by quarter of the day.
        output_tokens: float64[4, 26], likewise.
    """

    rate: NDArray[np.float64]
    intervals: tuple[Intervals, ...]
    input_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]

    def shifted(self, windows: int) -> Tenant:
        """The same day, begun at another time; lengths keep their quarter of the clock."""
        intervals = self.intervals[-windows:] + self.intervals[:-windows]
        return Tenant(np.roll(self.rate, windows), intervals, self.input_tokens, self.output_tokens)

    def draw_lengths(
        self, rng: np.random.Generator, window: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Input and output tokens of requests in these windows, drawn independently.

        One uniform for both, as ServeGen draws them, would make long prompts answer at length.
        """
        quarter = window * QUARTERS // WINDOWS
        return _draw(rng, self.input_tokens, quarter), _draw(rng, self.output_tokens, quarter)


def _draw(
    rng: np.random.Generator, quantiles: NDArray[np.float64], quarter: NDArray[Any]
) -> NDArray[np.int64]:
    uniform = rng.random(len(quarter))
    tokens = np.empty(len(quarter))
    for row in range(QUARTERS):
        here = quarter == row
        tokens[here] = np.interp(uniform[here], LEVELS, quantiles[row])
    return np.maximum(np.rint(tokens), 1).astype(np.int64)


def read_tenants(traces: Path) -> list[Tenant]:
    """All of ServeGen's clients that were active on day 1.

    Raises:
        BadRequestError: A file is absent or broken, or has nobody on that day.
    """
    path = trace_file(traces, RATES_FILE)
    cells = {
        "model": table.NAME,
        "client": table.COUNT,
        "ts": table.COUNT,
        "rate": table.NUMBER,
        "dist": table.NAME,
        "p1": _SHAPE,
    }
    columns = table.read_columns(path, cells)
    kinds = dict(zip(_KINDS, range(len(_KINDS)), strict=True))
    columns["dist"] = table.indexes(path, "dist", columns["dist"], kinds.get, ", ".join(_KINDS))
    today = columns["ts"] // DAY_S == DAY
    rows = {name: column[today] for name, column in columns.items()}
    lengths = _read_lengths(trace_file(traces, LENGTHS_FILE))
    tenants: dict[tuple[str, int], list[int]] = {}
    for row, key in enumerate(zip(rows["model"], rows["client"].tolist(), strict=True)):
        tenants.setdefault(key, []).append(row)
    if not tenants:
        raise BadRequestError(f"{path} has no rows of day {DAY}", field="ts", expected="some")
    return [_tenant(rows, mine, lengths, key) for key, mine in sorted(tenants.items())]


_FIELDS = ("input_tokens", "output_tokens")
_MEDIANS = -1
_Quantiles = dict[tuple[str, int, str], NDArray[np.float64]]


def _tenant(
    rows: dict[str, NDArray[Any]], mine: list[int], lengths: _Quantiles, key: tuple[str, int]
) -> Tenant:
    rate = np.zeros(WINDOWS)
    intervals = [Intervals("Gamma", 1.0)] * WINDOWS
    for row in mine:
        window = int(rows["ts"][row] % DAY_S) // WINDOW_S
        rate[window] = rows["rate"][row]
        intervals[window] = Intervals(_KINDS[rows["dist"][row]], float(rows["p1"][row]))
    inputs, outputs = (_lengths_of(lengths, key, name) for name in _FIELDS)
    return Tenant(rate, tuple(intervals), inputs, outputs)


def _lengths_of(lengths: _Quantiles, key: tuple[str, int], field: str) -> NDArray[np.float64]:
    """Of this client, or the medians of its class."""
    found = lengths.get((*key, field), lengths.get((key[0], _MEDIANS, field)))
    if found is None:
        raise BadRequestError(
            f"{LENGTHS_FILE} has no {field} of class {key[0]} on day {DAY}",
            field="traces",
            expected="those of one client at least",
        )
    return found


def _read_lengths(path: Path) -> _Quantiles:
    """Quantiles by class, client and field; client `_MEDIANS` has those of its class."""
    cells = {
        "model": table.NAME,
        "client": table.COUNT,
        "ts": table.COUNT,
        "field": table.NAME,
        **dict.fromkeys(_COLUMNS, table.NUMBER),
    }
    columns = table.read_columns(path, cells)
    today = columns["ts"] // DAY_S == DAY
    values = np.stack([columns[name] for name in _COLUMNS], axis=1)[today]
    quarter = columns["ts"][today] % DAY_S * QUARTERS // DAY_S
    found: dict[tuple[str, int, str], NDArray[np.float64]] = {}
    keys = list(
        zip(
            columns["model"][today],
            columns["client"][today].tolist(),
            columns["field"][today],
            strict=True,
        )
    )
    for key, row, place in zip(keys, values, quarter, strict=True):
        found.setdefault(key, np.full((QUARTERS, len(LEVELS)), np.nan))[place] = row
    filled = {key: _fill(rows) for key, rows in found.items()}
    classes: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for (model, _, name), rows in filled.items():
        classes.setdefault((model, name), []).append(rows)
    medians = {
        (model, _MEDIANS, name): np.median(all_, 0) for (model, name), all_ in classes.items()
    }
    return filled | medians


def _fill(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quarters without a file take the nearest one that has."""
    known = np.flatnonzero(~np.isnan(rows[:, 0]))
    nearest = known[np.abs(np.arange(QUARTERS)[:, None] - known).argmin(axis=1)]
    return np.asarray(rows[nearest])
