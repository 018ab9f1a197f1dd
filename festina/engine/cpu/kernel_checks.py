"""Checks of kernel arguments, the same for the numpy form as the native ones make."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from festina.errors import EngineError, UnsupportedModelError

Shape = tuple[int | None, ...]
"""None stands for any size."""


def check_input(
    array: NDArray[Any], field: str, shape: Shape | None = None, dtype: DTypeLike = np.float32
) -> None:
    """`array` is C-contiguous, of this type and shape.

    Raises:
        EngineError: It is not; `field` names the argument.
    """
    require(array.dtype == dtype, field, f"dtype {np.dtype(dtype)}", "wrong array")
    require(array.flags.c_contiguous, field, "a C-contiguous array", "wrong array")
    if shape is None:
        return
    fits = array.ndim == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape, array.shape, strict=True)
    )
    sizes = "".join(f"{'*' if size is None else size}, " for size in shape)
    require(fits, field, f"shape ({sizes})", "wrong array")


def check_output(
    array: NDArray[Any], field: str, shape: Shape | None = None, dtype: DTypeLike = np.float32
) -> None:
    """As `check_input`, and it can be written to."""
    check_input(array, field, shape, dtype)
    require(array.flags.writeable, field, "a writeable array", "wrong array")


def check_pool(keys: NDArray[Any], values: NDArray[Any], head_dim: int, block_tokens: int) -> None:
    """The KV pool of one layer; see `kernel_types`."""
    check_output(keys, "keys", (None, None, head_dim, block_tokens))
    check_output(values, "values", (*keys.shape[:2], block_tokens, head_dim))


def check_ids(ids: NDArray[Any], bound: int, field: str) -> None:
    """Every id is in [0, bound)."""
    fits = bool(np.all((ids >= 0) & (ids < bound)))
    require(fits, field, "ids in range", "an id is out of range")


def check_name(name: str, field: str, known: tuple[str, ...], what: str) -> None:
    """`name` is one of `known`.

    Raises:
        UnsupportedModelError: It is not.
    """
    if name not in known:
        raise UnsupportedModelError(
            f"unknown {what} {name}", field=field, expected=" or ".join(known)
        )


def require(fits: bool, field: str, expected: str, message: str) -> None:
    """Raise `EngineError` unless it fits."""
    if not fits:
        raise EngineError(message, field=field, expected=expected)
