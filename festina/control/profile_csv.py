"""Profile files, read and checked: `profiles/<device kind>/<model>.csv`.

The layout is in `festina.profile_format`. Rows are ordered by phase (prefill, decode, idle), then
ascending by SMs, clock, tokens and context. Prefill: tokens = new tokens, context = cached tokens.
Decode: tokens = batch, context = context tokens per sequence. Each is a full grid over its own work
axes; both share SMs and clocks. `power_w` is dynamic, above idle; `spread` is the relative standard
error of the latency. Idle rows give the power of a device that holds a context, per clock, and 0
elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeAlias, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from festina.errors import ProfileError
from festina.profile_format import (
    COLUMNS,
    FORMAT,
    PHASES,
    ModelInfo,
    ProfileRow,
    write_profile_file,
)

SOURCES = ("measured", "modelled", "corrected")
CELL = np.dtype(
    [
        ("latency_ms", "<f8"),
        ("power_w", "<f8"),
        ("flops_per_s", "<f8"),
        ("bytes_per_s", "<f8"),
        ("spread", "<f4"),
        ("latency_factor", "<f4"),
        ("power_factor", "<f4"),
        ("samples", "<u4"),
        ("source", "<u4"),
        ("observations", "<u4"),
        ("version", "<u8"),
    ]
)
"""A cell as `csrc/core/profile_table/cell.hpp` defines it; `source` indexes `SOURCES`."""

Cells: TypeAlias = NDArray[np.void]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The cells of one phase.

    Attributes:
        tokens: Knots of the first work axis, ascending.
        context: Knots of the second, ascending.
        cells: `CELL` (tokens, context, sms, clocks).
    """

    tokens: tuple[int, ...]
    context: tuple[int, ...]
    cells: Cells


@dataclass(frozen=True, slots=True, eq=False)
class ModelProfile:
    """One profile file.

    Attributes:
        info: Its head.
        sms: The device's rungs, ascending.
        clocks_mhz: The device's clocks, ascending; (0,) where it has none.
        idle_w: Per clock.
        prefill: Cells of prefill steps.
        decode: Cells of decode steps.
        idle_source: How `idle_w` came about, one of `SOURCES`.
    """

    info: ModelInfo
    sms: tuple[int, ...]
    clocks_mhz: tuple[int, ...]
    idle_w: tuple[float, ...]
    prefill: Grid
    decode: Grid
    idle_source: str


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the file, checked by itself."""

    line: int
    key: tuple[int, int, int, int]  # sms, clock_mhz, tokens, context
    figures: tuple[float, float, float, float, float]  # latency_ms to spread
    samples: int
    source: int


def read_profile(path: Path) -> ModelProfile:
    """Reads and checks one file.

    Raises:
        ProfileError: Naming the file, the line and the field that is wrong.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"cannot be read: {error}", field=str(path)) from error
    head = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    info = _read_info(path, lines[:head])
    if head >= len(lines) or lines[head] != ",".join(COLUMNS):
        raise _error(path, head + 1, "header", "is missing or different", ",".join(COLUMNS))
    rows: dict[str, list[_Row]] = {phase: [] for phase in PHASES}
    phase_before = PHASES[0]
    for number, line in enumerate(lines[head + 1 :], head + 2):
        phase, row = _read_row(path, number, line)
        if PHASES.index(phase) < PHASES.index(phase_before):
            raise _error(path, number, "phase", f"{phase} after {phase_before}", "order of phases")
        phase_before = phase
        if rows[phase]:
            _check_order(path, rows[phase][-1], row)
        rows[phase].append(row)
    return _assemble(path, len(lines), info, rows)


def _read_info(path: Path, lines: list[str]) -> ModelInfo:
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        key, colon, value = line[1:].partition(":")
        key = key.strip()
        if not colon:
            raise _error(path, number, "metadata", f"{line!r} has no value", "# key: value")
        if key in found:
            raise _error(path, number, key, "is given twice", "each key once")
        found[key] = value.strip()
    if "format" not in found:
        raise _error(path, 1, "format", "is missing", f"# format: {FORMAT}")
    try:
        info = msgspec.convert(found, ModelInfo, strict=False)
    except msgspec.ValidationError as error:
        raise ProfileError(str(error), field=str(path), expected="the keys of a profile") from error
    if info.format != FORMAT:
        raise ProfileError(
            f"is {info.format}", field=f"{path}: format", expected=f"{FORMAT}, the only known one"
        )
    for name in ("load_ms", "wake_ms", "parked_w"):
        if not math.isfinite(getattr(info, name)):
            raise ProfileError("is not finite", field=f"{path}: {name}", expected="a number")
    return info


def _read_row(path: Path, number: int, line: str) -> tuple[str, _Row]:
    fields = line.split(",")
    if len(fields) != len(COLUMNS):
        raise _error(
            path, number, "row", f"has {len(fields)} fields, is it cut off?", f"{len(COLUMNS)}"
        )
    named = dict(zip(COLUMNS, fields, strict=True))
    phase = named["phase"]
    if phase not in PHASES:
        raise _error(path, number, "phase", f"{phase!r} is unknown", " or ".join(PHASES))
    if named["source"] not in SOURCES:
        raise _error(
            path, number, "source", f"{named['source']!r} is unknown", " or ".join(SOURCES)
        )
    idle = phase == "idle"
    lowest = {"sms": 0 if idle else 1, "tokens": 0 if idle else 1}
    whole = {
        name: _whole(path, number, name, named[name], lowest.get(name, 0))
        for name in ("sms", "clock_mhz", "tokens", "context", "samples")
    }
    figures = tuple(_figure(path, number, name, named[name]) for name in COLUMNS[5:10])
    if idle and (whole["sms"] or whole["tokens"] or whole["context"]):
        raise _error(path, number, "sms, tokens, context", "of an idle row", "0")
    if not idle and figures[0] <= 0:
        raise _error(path, number, "latency_ms", f"is {figures[0]}", "a positive number")
    return phase, _Row(
        line=number,
        key=(whole["sms"], whole["clock_mhz"], whole["tokens"], whole["context"]),
        figures=cast("tuple[float, float, float, float, float]", figures),
        samples=whole["samples"],
        source=SOURCES.index(named["source"]),
    )


def _whole(path: Path, number: int, name: str, text: str, lowest: int) -> int:
    if text.isascii() and text.isdigit() and lowest <= int(text) < 2**31:
        return int(text)
    raise _error(path, number, name, f"is {text!r}", f"a whole number from {lowest}")


def _figure(path: Path, number: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise _error(path, number, name, f"is {text!r}", "a number, at least 0")
    return value


def _check_order(path: Path, before: _Row, row: _Row) -> None:
    if row.key == before.key:
        raise _error(path, row.line, "row", f"repeats line {before.line}", "each cell once")
    if row.key < before.key:
        name = next(
            name for name, a, b in zip(COLUMNS[1:5], before.key, row.key, strict=True) if b < a
        )
        raise _error(path, row.line, name, "is less than in the row before", "ascending rows")


def _assemble(path: Path, end: int, info: ModelInfo, rows: dict[str, list[_Row]]) -> ModelProfile:
    for phase in PHASES:
        if not rows[phase]:
            raise _error(path, end, "phase", f"there is no row of {phase}", "rows of each phase")
    sms = _axis(rows["prefill"], 0)
    clocks = _axis(rows["prefill"], 1)
    if sms[-1] > info.sms_total:
        raise ProfileError(
            f"is {sms[-1]}", field=f"{path}: sms", expected=f"at most sms_total, {info.sms_total}"
        )
    idle = {row.key[1]: row for row in rows["idle"]}
    for clock in clocks:
        if clock not in idle:
            raise _error(path, end, "clock_mhz", f"no idle row at {clock}", "one per clock")
    for clock, row in idle.items():
        if clock not in clocks:
            raise _error(path, row.line, "clock_mhz", f"{clock} is in no other phase", f"{clocks}")
    return ModelProfile(
        info=info,
        sms=sms,
        clocks_mhz=clocks,
        idle_w=tuple(idle[clock].figures[1] for clock in clocks),
        prefill=_grid(path, end, rows["prefill"], sms, clocks),
        decode=_grid(path, end, rows["decode"], sms, clocks),
        idle_source=SOURCES[max(row.source for row in idle.values())],
    )


def _axis(rows: list[_Row], place: int) -> tuple[int, ...]:
    return tuple(sorted({row.key[place] for row in rows}))


def _grid(
    path: Path, end: int, rows: list[_Row], sms: tuple[int, ...], clocks: tuple[int, ...]
) -> Grid:
    tokens = _axis(rows, 2)
    context = _axis(rows, 3)
    expected = ((s, c, t, k) for s in sms for c in clocks for t in tokens for k in context)
    found = iter(rows)
    for key in expected:
        row = next(found, None)
        if row is None or row.key != key:
            place = ", ".join(f"{n} {v}" for n, v in zip(COLUMNS[1:5], key, strict=True))
            line = end if row is None else row.line
            raise _error(path, line, "row", f"the grid lacks {place} here", "a full grid")
    if (row := next(found, None)) is not None:
        raise _error(path, row.line, "sms", "is in no other phase", f"one of {sms}")
    shape = (len(sms), len(clocks), len(tokens), len(context))
    return Grid(tokens, context, _cells(rows).reshape(shape).transpose(2, 3, 0, 1))


def _cells(rows: list[_Row]) -> Cells:
    cells: Cells = np.zeros(len(rows), CELL)
    figures = np.array([row.figures for row in rows])
    for column, name in enumerate(COLUMNS[5:10]):
        cells[name] = figures[:, column]
    cells["samples"] = [row.samples for row in rows]
    cells["source"] = [row.source for row in rows]
    cells["latency_factor"] = 1
    cells["power_factor"] = 1
    return cells


def _error(path: Path, line: int, field: str, message: str, expected: str) -> ProfileError:
    return ProfileError(message, field=f"{path}:{line}: {field}", expected=expected)


def write_profile(path: Path, profile: ModelProfile) -> None:
    """Writes one file; reading it back gives the same figures, with all factors 1."""
    write_profile_file(path, profile.info, _rows(profile), digits=None)


def _rows(profile: ModelProfile) -> Iterator[ProfileRow]:
    for phase, grid in (("prefill", profile.prefill), ("decode", profile.decode)):
        keys = product(profile.sms, profile.clocks_mhz, grid.tokens, grid.context)
        cells = cast("list[tuple[float, ...]]", grid.cells.transpose(2, 3, 0, 1).ravel().tolist())
        for key, cell in zip(keys, cells, strict=True):
            latency_ms, power_w, flops_per_s, bytes_per_s, spread, _, _, samples, source = cell[:9]
            yield ProfileRow(
                phase,
                *key,
                latency_ms,
                power_w,
                flops_per_s,
                bytes_per_s,
                float(str(np.float32(spread))),  # no more digits than the table holds
                int(samples),
                SOURCES[int(source)],
            )
    for clock_mhz, power_w in zip(profile.clocks_mhz, profile.idle_w, strict=True):
        yield ProfileRow(
            "idle", 0, clock_mhz, 0, 0, 0.0, power_w, 0.0, 0.0, 0.0, 0, profile.idle_source
        )
