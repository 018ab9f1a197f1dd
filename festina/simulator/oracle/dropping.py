"""A lower bound that holds whichever share of the requests a schedule fails.

A schedule that may fail some requests will fail those that cost most. The bound prices requests
such that none costs more than `limit_j`, as far as that is possible: a linear program, solved by
HiGHS, one per model.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import highspy
import numpy as np

from festina.errors import FestinaError
from festina.simulator.oracle.demand import Array, Intervals


def capped_weights(
    demand: Intervals, pass_j: float, own_j: Array, limit_j: float
) -> tuple[Array, float]:
    """Weights of intervals, as in `heaviest_chain` but shared out over many requests.

    Minimises passes·pass_j + Σ z·(limit_j - own_j), where z ≥ 0 is the share of a request that is
    failed and a request with z = 0 has all its passes; gives the duals of the intervals. With its
    passes thus weighed no request costs more than the limit, or than its tokens.

    Args:
        demand: Of one model.
        pass_j: Least energy of a pass.
        own_j: float64[workload]; energy of each request's tokens.
        limit_j: What no request should cost.

    Returns:
        Weights float64[n] ≥ 0, whose sum is at most 1 at any time that they cover, and Σ z.

    Raises:
        FestinaError: HiGHS finds no optimum.
    """
    solver = _silent_solver()
    solver.setOptionValue("threads", 1)
    solver.passModel(_program(demand, pass_j, own_j, limit_j))
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        status = solver.modelStatusToString(solver.getModelStatus())
        raise FestinaError(f"the oracle's linear program ended as {status}")
    solution = solver.getSolution()
    duals = np.array(solution.row_dual)[: len(demand)]
    times = len(solution.col_value) - len(np.unique(demand.request))
    failed = float(np.sum(solution.col_value[times:]))
    return feasible(demand, np.maximum(duals, 0.0) / pass_j), failed


def _silent_solver() -> highspy.Highs:
    """Greets nobody: HiGHS writes to descriptor 1 when it is made, before any option can stop it.

    Whoever reads our JSON from there must not find a greeting in it.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        solver = highspy.Highs()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    solver.setOptionValue("output_flag", False)
    return solver


def feasible(demand: Intervals, weights: Array) -> Array:
    """The weights, lowered so that no moment is covered more than once.

    Makes the bound independent of the tolerances of whoever found the weights.
    """
    times = np.concatenate([demand.end_ms, demand.start_ms])
    change = np.concatenate([-weights, weights])
    covered = np.cumsum(change[np.argsort(times, kind="stable")])  # an end before a start
    return np.asarray(weights / max(1.0, float(covered.max(initial=0.0))))


def _program(demand: Intervals, pass_j: float, own_j: Array, limit_j: float) -> highspy.HighsLp:
    """Columns: passes so far at each time of interest, then z of each request."""
    requests, request = np.unique(demand.request, return_inverse=True)
    times, where = np.unique(np.concatenate([demand.start_ms, demand.end_ms]), return_inverse=True)
    start, end = where[: len(demand)], where[len(demand) :]
    n, r, t = len(demand), len(requests), len(times)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = t + r, n + t - 1
    cost = np.concatenate([np.zeros(t), np.maximum(limit_j - own_j[requests], 0.0)])
    cost[t - 1] += pass_j
    lp.col_cost_ = cost
    lp.col_lower_ = np.zeros(t + r)
    lp.col_upper_ = np.concatenate([[0.0], np.full(t - 1 + r, np.inf)])
    lp.row_lower_ = np.concatenate([demand.passes, np.zeros(t - 1)])
    lp.row_upper_ = np.full(n + t - 1, np.inf)
    enough = np.stack([start, end, t + request], axis=1).ravel()
    ordered = np.stack([np.arange(t - 1), np.arange(1, t)], axis=1).ravel()
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.concatenate([3 * np.arange(n), 3 * n + 2 * np.arange(t)])
    lp.a_matrix_.index_ = np.concatenate([enough, ordered])
    lp.a_matrix_.value_ = np.concatenate(
        [
            np.stack([-np.ones(n), np.ones(n), demand.passes], axis=1).ravel(),
            np.tile([-1.0, 1.0], t - 1),
        ]
    )
    return lp
