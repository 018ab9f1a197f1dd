"""Request traces: who asks for how much, when. Reads the plain CSV and Azure's, gzipped or not.

Plain: `t_s,model,input_tokens,output_tokens` (further columns are ignored; `model` may be absent).
Azure LLM inference (github.com/Azure/AzurePublicDataset):
`TIMESTAMP,ContextTokens,GeneratedTokens`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from festina.errors import BadRequestError
from festina.workload import table
from festina.workload.table import TOKENS_MAX

_PLAIN = {"t_s": table.SECONDS, "input_tokens": table.TOKENS, "output_tokens": table.TOKENS}
_AZURE = {
    "TIMESTAMP": table.STAMP,
    "ContextTokens": table.TOKENS,
    "GeneratedTokens": table.TOKENS,
}


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


@dataclass(frozen=True, slots=True)
class TraceColumns:
    """The requests of a trace as columns of equal length, as they lie in the file.

    Attributes:
        t_s: float64[n]; from the first request of an Azure file.
        model: object[n] of str, or None where the trace names no models.
        input_tokens: int64[n].
        output_tokens: int64[n].
        in_order: Whether rows ought to ascend in time; Azure's times need not.
    """

    t_s: NDArray[np.float64]
    model: NDArray[np.object_] | None
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    in_order: bool = True


def parse_columns(path: Path, text: str) -> TraceColumns:
    """All requests of a plain or an Azure CSV file.

    Args:
        path: For errors.
        text: The whole file.

    Raises:
        BadRequestError: The file has other columns, or a value is wrong; `field` is
            `FILE:LINE:COLUMN`.
    """
    header = set(table.header_of(path, text))
    if header >= set(_AZURE):
        columns = table.columns_of(path, text, _AZURE)
        stamps, inputs, outputs = (columns[name] for name in _AZURE)
        return TraceColumns(stamps - stamps.min(), None, inputs, outputs, in_order=False)
    if not header >= set(_PLAIN):
        raise BadRequestError(
            f"{path} has the columns {', '.join(sorted(header)) or 'none'}",
            field="trace",
            expected="t_s,model,input_tokens,output_tokens or "
            "TIMESTAMP,ContextTokens,GeneratedTokens",
        )
    named = {"model": table.NAME} if "model" in header else {}
    columns = table.columns_of(path, text, {**_PLAIN, **named})
    times, inputs, outputs = (columns[name] for name in _PLAIN)
    return TraceColumns(times, columns.get("model"), inputs, outputs)


def read_columns(path: Path) -> TraceColumns:
    """All requests of a plain or an Azure CSV file, gzipped or not.

    Raises:
        BadRequestError: The file cannot be read, or as `parse_columns`.
    """
    return parse_columns(path, table.read_text(path))


def read_trace(path: Path) -> list[TraceRow]:
    """All rows of a trace file, by time; times count from the first row of an Azure file.

    Raises:
        BadRequestError: As `read_columns`.
    """
    columns = read_columns(path)
    models = [""] * len(columns.t_s) if columns.model is None else columns.model.tolist()
    order = np.argsort(columns.t_s, kind="stable").tolist()
    times, inputs, outputs = (
        column.tolist() for column in (columns.t_s, columns.input_tokens, columns.output_tokens)
    )
    return [TraceRow(times[row], models[row], inputs[row], outputs[row]) for row in order]


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
