"""The folder of traces that recipes read."""

from __future__ import annotations

from pathlib import Path

from festina.errors import BadRequestError


def trace_file(traces: Path, name: str) -> Path:
    """A file of the trace folder.

    Raises:
        BadRequestError: It is not there; `field` is `traces`.
    """
    path = traces / name
    if not path.is_file():
        raise BadRequestError(
            f"{path} is missing",
            field="traces",
            expected=f"a folder with {name}, or none for a synthetic stand-in",
        )
    return path
