"""Request traces: who asks for how much, when. Reads the plain CSV and Azure's, gzipped or not.

Plain: `t_s,model,input_tokens,output_tokens` (further columns are ignored; `model` may be absent).
Azure LLM inference (github.com/Azure/AzurePublicDataset):
`TIMESTAMP,ContextTokens,GeneratedTokens`.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from festina.errors import BadRequestError

ROWS_MAX = 10_000_000
TOKENS_MAX = 2**20


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request.

    Attributes:
        t_s: When it is sent, from the start of the trace.
        model: Deployment, or "" where the trace names none.
        input_tokens: Prompt length, ≥ 1.
        output_tokens: Output length, ≥ 1.
    """

    t_s: float
    model: str
    input_tokens: int
    output_tokens: int


def read_trace(path: Path) -> list[TraceRow]:
    """All rows of a trace file, by time; times count from the first row of an Azure file.

    Raises:
        BadRequestError: The file cannot be read, has other columns, or a value is wrong; `field`
            is `FILE:LINE:COLUMN`.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadRequestError(f"cannot read {path}: {error}", field="trace") from error
    reader = csv.DictReader(io.StringIO(text))
    columns = set(reader.fieldnames or ())
    parse = _parser(columns)
    if parse is None:
        raise BadRequestError(
            f"{path} has the columns {', '.join(sorted(columns)) or 'none'}",
            field="trace",
            expected="t_s,model,input_tokens,output_tokens or "
            "TIMESTAMP,ContextTokens,GeneratedTokens",
        )
    rows = list(_rows(path, reader, parse))
    if not rows:
        raise BadRequestError(f"{path} holds no requests", field="trace", expected="at least one")
    rows.sort(key=lambda row: row.t_s)
    return _from_zero(rows) if "TIMESTAMP" in columns else rows


def shape_trace(
    rows: Sequence[TraceRow],
    *,
    duration_s: float = math.inf,
    speedup: float = 1.0,
    scale_tokens: float = 1.0,
    context_tokens: int = TOKENS_MAX,
) -> list[TraceRow]:
    """A trace made shorter, denser or smaller.

    Args:
        rows: By time.
        duration_s: Keep rows before this time of the original trace.
        speedup: > 0; times are divided by it, after the cut.
        scale_tokens: > 0; lengths are multiplied by it, and stay at least 1.
        context_tokens: Longest prompt plus output; longer prompts lose their head, then outputs
            their tail, so that both keep at least one token.
    """
    return [
        _shape(row, speedup, scale_tokens, context_tokens) for row in rows if row.t_s < duration_s
    ]


def assign_models(
    rows: Sequence[TraceRow], models: Sequence[tuple[str, float]], rng: np.random.Generator
) -> list[TraceRow]:
    """Rows with their model drawn from `models` (name, weight > 0), whatever the trace said."""
    names = [name for name, _ in models]
    weights = np.array([weight for _, weight in models])
    draws = rng.choice(len(names), size=len(rows), p=weights / weights.sum())
    return [replace(row, model=names[draw]) for row, draw in zip(rows, draws, strict=True)]


def rename_models(rows: Sequence[TraceRow], names: dict[str, str]) -> list[TraceRow]:
    """Rows with the trace's model names replaced; names that are not in `names` stay."""
    return [replace(row, model=names.get(row.model, row.model)) for row in rows]


def _shape(row: TraceRow, speedup: float, scale_tokens: float, context_tokens: int) -> TraceRow:
    output_tokens = min(max(1, round(row.output_tokens * scale_tokens)), context_tokens - 1)
    input_tokens = max(1, round(row.input_tokens * scale_tokens))
    return TraceRow(
        t_s=row.t_s / speedup,
        model=row.model,
        input_tokens=min(input_tokens, context_tokens - output_tokens),
        output_tokens=output_tokens,
    )


_Row = dict[str, str]
_Parse = Callable[[_Row], TraceRow]


class _FieldError(ValueError):
    """A value of a row is wrong."""

    def __init__(self, column: str, value: object, expected: str) -> None:
        super().__init__(column)
        self.column, self.value, self.expected = column, value, expected


def _parser(columns: set[str]) -> _Parse | None:
    if columns >= {"t_s", "input_tokens", "output_tokens"}:
        return _plain_row
    if columns >= {"TIMESTAMP", "ContextTokens", "GeneratedTokens"}:
        return _azure_row
    return None


def _rows(path: Path, reader: csv.DictReader[str], parse: _Parse) -> Iterator[TraceRow]:
    for raw in reader:
        try:
            yield parse(raw)
        except _FieldError as error:
            raise BadRequestError(
                f"got {error.value!r}",
                field=f"{path.name}:{reader.line_num}:{error.column}",
                expected=error.expected,
            ) from error
        if reader.line_num > ROWS_MAX:
            raise BadRequestError(
                f"{path} is too long", field="trace", expected=f"at most {ROWS_MAX} rows"
            )


def _plain_row(raw: _Row) -> TraceRow:
    return TraceRow(
        t_s=_seconds(raw, "t_s"),
        model=raw.get("model") or "",
        input_tokens=_tokens(raw, "input_tokens"),
        output_tokens=_tokens(raw, "output_tokens"),
    )


def _azure_row(raw: _Row) -> TraceRow:
    stamp = raw["TIMESTAMP"] or ""
    try:
        time = datetime.fromisoformat(stamp)
    except ValueError:
        raise _FieldError("TIMESTAMP", stamp, "a time such as 2023-11-16 18:15:46.68") from None
    t_s = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    return TraceRow(t_s, "", _tokens(raw, "ContextTokens"), _tokens(raw, "GeneratedTokens"))


def _seconds(raw: _Row, column: str) -> float:
    try:
        value = float(raw[column])
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise _FieldError(column, raw[column], "seconds ≥ 0")
    return value


def _tokens(raw: _Row, column: str) -> int:
    try:
        value = int(raw[column])
    except (TypeError, ValueError):
        value = 0
    if not 1 <= value <= TOKENS_MAX:
        raise _FieldError(column, raw[column], f"an integer from 1 to {TOKENS_MAX}")
    return value


def _from_zero(rows: list[TraceRow]) -> list[TraceRow]:
    return [replace(row, t_s=row.t_s - rows[0].t_s) for row in rows]
