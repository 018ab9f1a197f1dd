"""Sessions of coding agents: closed loops of requests that share a growing prefix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from festina.simulator.workloads.folder import trace_file
from festina.workload import table

FILE = "agentic_coding_sessions.csv.gz"
FAMILIES = ("opus", "sonnet", "haiku")
"""Sizes of the asked models, largest first."""
_SECONDS = replace(table.SECONDS, blank=True)


@dataclass(frozen=True, slots=True)
class Session:
    """Requests of one agent, each sent when the one before has been answered and thought about.

    Attributes:
        family: int64[n], index into `FAMILIES`.
        think_s: Time between an answer and the next request; 0 for the first.
        api_s: How long the recorded answer took.
        input_tokens: ≥ 1.
        cached_tokens: Of these, the prefix that the previous request has sent already.
        output_tokens: ≥ 1.
    """

    family: NDArray[Any]
    think_s: NDArray[Any]
    api_s: NDArray[Any]
    input_tokens: NDArray[Any]
    cached_tokens: NDArray[Any]
    output_tokens: NDArray[Any]


def read_sessions(traces: Path) -> list[Session]:
    """All sessions of the trace: one for each agent of each recorded conversation.

    Raises:
        BadRequestError: The file is absent or broken, or names a model of no known family.
    """
    path = trace_file(traces, FILE)
    cells = {
        "trace": table.NAME,
        "agent": table.NAME,
        "model": table.NAME,
        "input_tokens": table.TOKENS,
        "output_tokens": table.COUNT,
        "prefix_hit_tokens": table.COUNT,
        "api_time_s": _SECONDS,
        "think_time_s": _SECONDS,
    }
    columns = table.read_columns(path, cells)
    family = table.indexes(path, "model", columns["model"], _family, ", ".join(FAMILIES))
    rows: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(columns["trace"], columns["agent"], strict=True)):
        rows.setdefault(key, []).append(row)
    return [
        Session(
            family[mine],
            np.nan_to_num(columns["think_time_s"][mine]),
            np.nan_to_num(columns["api_time_s"][mine]),
            columns["input_tokens"][mine],
            columns["prefix_hit_tokens"][mine],
            np.maximum(columns["output_tokens"][mine], 1),
        )
        for mine in rows.values()
    ]


_SESSIONS = 398
# Of 398 sessions with 24,108 requests: ln mean and deviation.
_LN_REQUESTS = (3.47, 1.20)
_REQUESTS_RANGE = (2, 439)
_LN_FIRST_INPUT = (10.56, 0.80)
_LN_MISS = (6.79, 1.22)  # tokens that are not in the prefix
_MISS_MAX = 40_000
_INPUT_MAX = 900_000
_LN_OUTPUT = (5.56, 0.89)
_OUTPUT_MAX = 16_000
_LN_THINK_S = (2.50, 1.06)
_LN_API_S = (1.96, 0.70)
_FAMILY_SHARES = (0.53, 0.36, 0.11)


def draw_sessions(rng: np.random.Generator) -> list[Session]:
    """As many stand-ins as the trace has sessions."""
    return [_stand_in(rng) for _ in range(_SESSIONS)]


def _stand_in(rng: np.random.Generator) -> Session:
    size = int(np.clip(rng.lognormal(*_LN_REQUESTS), *_REQUESTS_RANGE))
    outputs = np.clip(np.rint(rng.lognormal(*_LN_OUTPUT, size)), 1, _OUTPUT_MAX).astype(np.int64)
    misses = np.clip(np.rint(rng.lognormal(*_LN_MISS, size)), 1, _MISS_MAX).astype(np.int64)
    misses[0] = round(rng.lognormal(*_LN_FIRST_INPUT))
    inputs = np.minimum(np.cumsum(misses), _INPUT_MAX)
    think_s = rng.lognormal(*_LN_THINK_S, size)
    think_s[0] = 0.0
    return Session(
        family=np.full(size, rng.choice(len(FAMILIES), p=_FAMILY_SHARES)),
        think_s=think_s,
        api_s=rng.lognormal(*_LN_API_S, size),
        input_tokens=inputs,
        cached_tokens=np.concatenate([[0], inputs[:-1]]),
        output_tokens=outputs,
    )


def _family(model: str) -> int | None:
    """Index of the family that a model's name begins with."""
    name = model.split("-")[0]
    return FAMILIES.index(name) if name in FAMILIES else None
