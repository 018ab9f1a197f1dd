"""Suffixes of workload names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

from festina.errors import BadRequestError


def number_after(prefix: str, variant: str) -> float | None:
    """The finite number > 0 that follows `prefix`; None where the variant is nothing such."""
    if not variant.startswith(prefix):
        return None
    try:
        value = float(variant[len(prefix) :])
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def refuse(variant: str, known: Sequence[str]) -> NoReturn:
    """Says that a recipe has no such variant.

    Raises:
        BadRequestError: Always; `field` is `workload`.
    """
    raise BadRequestError(
        f"no variant is called {variant!r}",
        field="workload",
        expected=", ".join(known) or "none",
    )
