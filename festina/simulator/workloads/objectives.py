"""The three sets of objectives that workloads are judged by."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from festina.errors import BadRequestError

Tokens = NDArray[np.integer[Any]]
Objectives = tuple[NDArray[np.float32], NDArray[np.float32]]


def _strict(inputs: Tokens, outputs: Tokens) -> Objectives:
    """The paper's: TTFT by length class, TBT 100 ms."""
    short = (inputs < 256) & (outputs < 100)
    medium = (inputs < 1024) & (outputs < 350)
    return np.select([short, medium], [250.0, 400.0], 2000.0).astype(np.float32), _all(outputs, 100)


def _relaxed(inputs: Tokens, outputs: Tokens) -> Objectives:
    """TTFT of one second per 512 input tokens, from 0.5 s to 8 s; TBT 250 ms."""
    return (np.clip(inputs / 512, 0.5, 8.0) * 1e3).astype(np.float32), _all(outputs, 250)


def _loose(inputs: Tokens, outputs: Tokens) -> Objectives:
    """TTFT 10 s, TBT 100 ms."""
    return _all(inputs, 10_000), _all(outputs, 100)


def _all(like: Tokens, value_ms: float) -> NDArray[np.float32]:
    return np.full(len(like), value_ms, np.float32)


OBJECTIVES: MappingProxyType[str, Callable[[Tokens, Tokens], Objectives]] = MappingProxyType(
    {"strict": _strict, "relaxed": _relaxed, "loose": _loose}
)
"""Name of a set to its objectives: input and output tokens in, TTFT and TBT in ms out."""


def objectives_ms(name: str, inputs: Tokens, outputs: Tokens) -> Objectives:
    """TTFT and TBT objectives, ms, of requests of these lengths.

    Raises:
        BadRequestError: No such set; `field` is `slo`.
    """
    if name not in OBJECTIVES:
        raise BadRequestError(
            f"no objectives are called {name!r}", field="slo", expected=", ".join(OBJECTIVES)
        )
    return OBJECTIVES[name](inputs, outputs)
