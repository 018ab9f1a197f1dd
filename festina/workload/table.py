"""Columns of CSV files, gzipped or not: read fast by numpy, and exact about what is wrong.

The fast path parses whole columns. Whatever it does not accept (a wrong value, a quoted or very
long name, a time zone) is read again cell by cell, which either names the first bad cell or has
the answer.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from festina.errors import BadRequestError

if TYPE_CHECKING:
    from _csv import Reader

ROWS_MAX = 10_000_000
TOKENS_MAX = 2**20
_NAME_BYTES = 64
_STAMP_CHARACTERS = (19, 29)  # 2023-11-16 18:15:46 with up to nine decimals


@dataclass(frozen=True, slots=True)
class Cell:
    """What the cells of a column hold.

    Attributes:
        dtype: numpy type in the fast path.
        parse: One cell; raises ValueError.
        least: Smallest value.
        most: Largest value.
        expected: For people.
        blank: Whether it may be empty, which reads as NaN.
    """

    dtype: str
    parse: Callable[[str], float | str]
    least: float
    most: float
    expected: str
    blank: bool = False


def _stamp_s(text: str) -> float:
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


SECONDS = Cell("f8", float, 0.0, math.inf, "seconds ≥ 0")
NUMBER = Cell("f8", float, 0.0, math.inf, "a number ≥ 0")
TOKENS = Cell("i8", int, 1, TOKENS_MAX, f"an integer from 1 to {TOKENS_MAX}")
COUNT = Cell("i8", int, 0, 2**31 - 1, "an integer ≥ 0")
NAME = Cell(f"S{_NAME_BYTES}", str, -math.inf, math.inf, "a name")
STAMP = Cell(
    f"S{_STAMP_CHARACTERS[1] + 1}",
    _stamp_s,
    -math.inf,
    math.inf,
    "a time such as 2023-11-16 18:15:46.68",
)


class _NotPlainError(ValueError):
    """The fast path cannot read this file."""


def read_text(path: Path) -> str:
    """A text file, unpacked if it is gzipped.

    Raises:
        BadRequestError: It cannot be read; `field` is `trace`.
    """
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadRequestError(f"cannot read {path}: {error}", field="trace") from error


def header_of(path: Path, text: str) -> list[str]:
    """Column names: the first line.

    Raises:
        BadRequestError: It is no line of CSV: it holds a carriage return in the middle, say.
    """
    return next(_rows(path, csv.reader([text[: text.find("\n") + 1 or len(text)]])), [])


def _rows(path: Path, reader: Reader) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise BadRequestError(
            f"no line of CSV: {error}", field=f"{path}:{reader.line_num}", expected="CSV"
        ) from error


def columns_of(path: Path, text: str, cells: Mapping[str, Cell]) -> dict[str, NDArray[Any]]:
    """The asked columns of a table, each of length n ≥ 1; names as objects (str), times in s.

    Args:
        path: For errors.
        text: The whole file.
        cells: Column name to what it holds; further columns are ignored.

    Raises:
        BadRequestError: A column is absent or the table is empty (`field` is `trace`), or a value
            is wrong (`FILE:LINE:COLUMN`).
    """
    header = header_of(path, text)
    if not set(cells) <= set(header):
        raise BadRequestError(
            f"{path} has the columns {', '.join(sorted(header)) or 'none'}",
            field="trace",
            expected=",".join(cells),
        )
    try:
        columns = _fast(text, header, cells)
    except _NotPlainError:
        columns = _cell_by_cell(path, text, header, cells)
    rows = len(next(iter(columns.values())))
    if not 0 < rows <= ROWS_MAX:
        raise BadRequestError(
            f"{path} holds {rows} requests", field="trace", expected=f"1 to {ROWS_MAX}"
        )
    return columns


def read_columns(path: Path, cells: Mapping[str, Cell]) -> dict[str, NDArray[Any]]:
    """`columns_of` a file."""
    return columns_of(path, read_text(path), cells)


def indexes(
    path: Path,
    column: str,
    names: NDArray[np.object_],
    index_of: Callable[[str], int | None],
    expected: str,
) -> NDArray[np.int64]:
    """What `index_of` makes of every name of a column.

    Raises:
        BadRequestError: It makes nothing of one; `field` is `FILE:LINE:COLUMN`.
    """
    values = names.tolist()
    found = {name: index_of(name) for name in dict.fromkeys(values)}
    for name, index in found.items():
        if index is None:
            raise cell_error(path, values.index(name), column, f"got {name!r}", expected)
    return np.array([found[name] for name in values], np.int64)


def cell_error(
    path: Path, row: int, column: str, message: str, expected: str, *, header: int = 1
) -> BadRequestError:
    """That a value of row `row` (0 follows the `header` lines) is wrong, to be raised."""
    lines = [number for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    return BadRequestError(
        message, field=f"{path.name}:{lines[row + header]}:{column}", expected=expected
    )


def _fast(text: str, header: list[str], cells: Mapping[str, Cell]) -> dict[str, NDArray[Any]]:
    body = text[text.find("\n") + 1 or len(text) :]
    if '"' in text or not body.strip():
        raise _NotPlainError
    try:
        table = np.loadtxt(
            io.StringIO(body),
            delimiter=",",
            comments=None,
            ndmin=1,
            usecols=[header.index(name) for name in cells],
            dtype=[(name, cell.dtype) for name, cell in cells.items()],
        )
    except (ValueError, OverflowError) as error:
        raise _NotPlainError from error
    return {name: _plain(table[name], cell) for name, cell in cells.items()}


def _plain(values: NDArray[Any], cell: Cell) -> NDArray[Any]:
    if cell is NAME:
        return _names(values)
    if cell is STAMP:
        return _stamps(values)
    if not (np.isfinite(values) & (values >= cell.least) & (values <= cell.most)).all():
        raise _NotPlainError
    return np.ascontiguousarray(values)


def _names(values: NDArray[Any]) -> NDArray[Any]:
    names = values.tolist()
    if max(map(len, names)) >= _NAME_BYTES:
        raise _NotPlainError
    texts = {name: name.decode("latin-1") for name in set(names)}
    return np.array([texts[name] for name in names], object)


def _stamps(values: NDArray[Any]) -> NDArray[Any]:
    lengths = np.char.str_len(values)
    if not (lengths.min() >= _STAMP_CHARACTERS[0] and lengths.max() <= _STAMP_CHARACTERS[1]):
        raise _NotPlainError
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            times = values.astype("datetime64[us]")
    except (ValueError, UserWarning) as error:
        raise _NotPlainError from error
    return times.astype(np.int64) / 1e6


def _cell_by_cell(
    path: Path, text: str, header: list[str], cells: Mapping[str, Cell]
) -> dict[str, NDArray[Any]]:
    reader = csv.reader(io.StringIO(text))
    rows = _rows(path, reader)
    next(rows, None)
    values: dict[str, list[Any]] = {name: [] for name in cells}
    places = [(name, cell, header.index(name)) for name, cell in cells.items()]
    for row in filter(None, rows):
        for name, cell, place in places:
            values[name].append(_value(path, reader.line_num, name, cell, row[place : place + 1]))
    return {
        name: np.array(values[name], object if cell is NAME else None)
        for name, cell in cells.items()
    }


def _within(value: float, cell: Cell) -> bool:
    return math.isfinite(value) and cell.least <= value <= cell.most


def _value(path: Path, line: int, name: str, cell: Cell, raw: list[str]) -> float | str:
    if cell.blank and raw == [""]:
        return math.nan
    try:
        value: float | str = cell.parse(raw[0])
        good = isinstance(value, str) or _within(value, cell)
    except (ValueError, IndexError):
        good = False
    if not good:
        raise BadRequestError(
            f"got {raw[0]!r}" if raw else "the row is too short",
            field=f"{path.name}:{line}:{name}",
            expected=cell.expected,
        )
    return value
