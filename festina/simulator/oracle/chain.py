"""The fewest passes that all intervals of one model need, by the heaviest chain among them.

A pass takes time, so intervals that at most touch share no pass, and the passes that they ask for
add up. By linear programming duality (the matrix of intervals is totally unimodular) the heaviest
chain of such intervals asks for exactly as many passes as all intervals together need.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from festina.simulator.oracle.demand import Array, Intervals


def heaviest_chain(demand: Intervals) -> Array:
    """float64[n], 1 where an interval is in the chain, else 0; O(n log n)."""
    order = np.argsort(demand.end_ms, kind="stable")
    starts = demand.start_ms[order].tolist()
    stops = demand.end_ms[order].tolist()
    passes = demand.passes[order].tolist()
    # The best chain that ends at or before `ends[i]` weighs `best[i]` and ends with `last[i]`.
    ends, best, last, before = [-np.inf], [0.0], [-1], [-1]
    for i, (start_ms, end_ms, count) in enumerate(zip(starts, stops, passes, strict=True)):
        previous = bisect_right(ends, start_ms) - 1
        weight = best[previous] + count
        if weight > best[-1]:
            ends.append(end_ms)
            best.append(weight)
            last.append(i)
            before.append(previous)
    chosen = np.zeros(len(demand))
    at = len(best) - 1
    while at > 0:
        chosen[order[last[at]]] = 1.0
        at = before[at]
    return chosen
