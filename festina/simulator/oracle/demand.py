"""What an attaining schedule has to do by when: passes of each model, as counts within intervals.

A request of o output tokens needs o passes of its model after it arrived, one after the other: the
first token comes from the pass that ends its prompt. If it attains its objectives, pass i + 1 has
ended by arrival + TTFT + i·TBT, later by what is excused: at most one gap in a hundred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from festina.simulator.oracle.costs import Prices
from festina.simulator.workload import Workload

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """`passes` passes must lie between `start_ms` and `end_ms` for `request` to attain.

    Attributes:
        request: int64[n]; rows of the workload.
        start_ms: float64[n].
        end_ms: float64[n].
        passes: float64[n].
    """

    request: Index
    start_ms: Array
    end_ms: Array
    passes: Array

    def __len__(self) -> int:
        return len(self.request)


def intervals(workload: Workload, requests: Index, points: int, stall_ms: float) -> Intervals:
    """Of each request the intervals to its first token, its last, and `points` - 1 in between.

    Args:
        workload: Whose they are.
        requests: Rows, of one model, none of which follows another request.
        points: How finely, ≥ 1.
        stall_ms: The longest gap that an attaining request is excused, where it is more than TBT.
    """
    gaps = workload.output_tokens[requests].astype(np.float64) - 1.0
    at = np.floor(gaps[:, None] * np.linspace(0.0, 1.0, points + 1))
    row = np.broadcast_to(np.arange(len(requests))[:, None], at.shape)
    new = np.ones(at.shape, np.bool_)
    new[:, 1:] = at[:, 1:] > at[:, :-1]
    row, after = row[new], at[new]
    tbt_ms = workload.tbt_ms[requests].astype(np.float64)[row]
    excused = np.minimum(after, np.floor(gaps / 100.0)[row])
    start_ms = workload.arrival_ms[requests][row]
    first_ms = start_ms + workload.ttft_ms[requests].astype(np.float64)[row]
    end_ms = first_ms + after * tbt_ms + excused * np.maximum(stall_ms - tbt_ms, 0.0)
    return Intervals(requests[row], start_ms, end_ms, after + 1.0)


def token_energy_j(workload: Workload, prices: list[Prices]) -> Array:
    """Least energy of each request's own tokens: float64[n]."""
    table = np.array(
        [(p.prompt_token_j, p.pair_j, p.decode_token_j, p.context_token_j) for p in prices]
    )
    prompt_j, pair_j, decode_j, context_j = table[workload.model].T
    cached = workload.cached_tokens.astype(np.float64)
    new = workload.input_tokens - cached
    decodes = workload.output_tokens.astype(np.float64) - 1.0
    pairs = new * cached + new * new / 2.0
    # The decode of token i + 1 finds the prompt and i - 1 tokens in the cache, i from 1.
    context = decodes * workload.input_tokens + decodes * (decodes - 1.0) / 2.0
    own_j = prompt_j * new + pair_j * pairs + decode_j * decodes + context_j * context
    return np.asarray(np.maximum(own_j, 0.0))
