"""JSON files beside weights, read with typed errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

from festina.errors import WeightsError

JsonObject: TypeAlias = "dict[str, object]"


def read_object(path: Path) -> JsonObject:
    """The object in a JSON file.

    Raises:
        WeightsError: It is missing, or holds no JSON object; `field` is its name.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"cannot read {path}: {error}", field=path.name, expected="a JSON file"
        ) from error
    return as_object(value, path.name)


def read_optional(path: Path) -> JsonObject:
    """As `read_object`; an empty object where there is no such file."""
    return read_object(path) if path.is_file() else {}


def as_object(value: object, field: str) -> JsonObject:
    """`value`, if it is an object.

    Raises:
        WeightsError: It is not.
    """
    if not isinstance(value, dict):
        raise WeightsError(f"a {type(value).__name__}", field=field, expected="an object")
    return value
