"""The offline lower bound (docs/oracle.md): no schedule that attains its objectives uses less."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from festina.device import physics
from festina.errors import BadRequestError
from festina.simulator.oracle.chain import heaviest_chain
from festina.simulator.oracle.costs import Prices, prices
from festina.simulator.oracle.demand import Array, Index, intervals, token_energy_j
from festina.simulator.oracle.dropping import capped_weights
from festina.simulator.tables import Bias, truth_table
from festina.simulator.workload import Workload

_POINTS = 64  # intervals per request, of a chain
_ROWS = 5000  # intervals per model, of a linear program
_LIMIT = 4.0  # of what a request should cost, over the mean, to begin with
_STEP = 1.7  # between limits
_TRIES = 3


class Cluster(Protocol):
    """What the bound has to know of a cluster."""

    @property
    def gpus(self) -> int:
        """How many."""

    @property
    def gpu(self) -> physics.GpuSpec:
        """Of which kind."""


@dataclass(frozen=True, slots=True)
class OracleParts:
    """Where the least energy goes, in joules.

    Attributes:
        dynamic: Steps, above idle power.
        awake: What an awake GPU draws more than a parked one, while it runs steps.
        parked: All GPUs, parked for the length of the workload.
        loading: Nothing: weights may be there from the start.
    """

    dynamic: float
    awake: float
    parked: float
    loading: float = 0.0


@dataclass(frozen=True, slots=True)
class OracleBound:
    """A lower bound on energy.

    Attributes:
        energy_j: The bound: the sum of the parts.
        parts: What it is made of.
        attainment: The share of requests that attain their objectives in the schedules it is for.
        stall_ms: The longest excused gap in them.
        seconds_to_solve: Wall time.
    """

    energy_j: float
    parts: OracleParts
    attainment: float
    stall_ms: float
    seconds_to_solve: float = field(compare=False)


def lower_bound(
    workload: Workload,
    cluster: Cluster,
    attainment: float = 1.0,
    *,
    bias: Bias | None = None,
    stall_ms: float = 1000.0,
) -> OracleBound:
    """No schedule on this cluster serves the workload with less energy.

    Args:
        workload: What is asked for.
        cluster: What it runs on.
        attainment: Share of all requests that attain their objectives. The others may be late,
            failed or rejected; which, is up to the schedule.
        bias: Of the truth, per deployment; None: the truth is the profile.
        stall_ms: No gap of an attaining request is longer than this and its TBT objective. The
            objective itself excuses a hundredth of a request's gaps, however long they are.

    Raises:
        BadRequestError: `attainment` is not in [0, 1] or `stall_ms` is negative.
        FestinaError: HiGHS finds no optimum.
    """
    if not 0.0 <= attainment <= 1.0:
        raise BadRequestError(f"is {attainment}", field="attainment", expected="0 to 1")
    if not stall_ms >= 0.0:
        raise BadRequestError(f"is {stall_ms}", field="stall_ms", expected="at least 0")
    started = time.perf_counter()
    shapes = [deployment.shape for deployment in workload.deployments]
    table = truth_table(cluster.gpu, sorted(set(shapes)))
    price = prices(cluster.gpu, table, shapes, bias or Bias.none(len(shapes)))
    failed = _failed(len(workload), attainment)
    best_j, best_awake_j = 0.0, 0.0
    for pass_share in _pass_shares(workload, price, stall_ms, failed):
        total_j, awake_j = _kept(workload, price, pass_share, failed)
        if total_j > best_j:
            best_j, best_awake_j = total_j, awake_j
    parked_j = cluster.gpus * physics.parked_w(cluster.gpu) * workload.metered_s
    parts = OracleParts(dynamic=best_j - best_awake_j, awake=best_awake_j, parked=parked_j)
    return OracleBound(
        energy_j=parked_j + best_j,
        parts=parts,
        attainment=attainment,
        stall_ms=stall_ms,
        seconds_to_solve=time.perf_counter() - started,
    )


def _failed(requests: int, attainment: float) -> int:
    """Requests that may fail; rounded so that 0.99 of 100 leaves one."""
    return int(np.floor(requests * (1.0 - attainment) + 1e-6))


def _kept(
    workload: Workload, price: list[Prices], passes: Array, failed: int
) -> tuple[float, float]:
    """(J, of it static) of all requests but the `failed` dearest."""
    pass_j = np.array([p.pass_j for p in price])[workload.model]
    awake_j = np.array([p.pass_awake_j for p in price])[workload.model]
    request_j = token_energy_j(workload, price) + passes * pass_j
    kept = np.argsort(request_j, kind="stable")[: len(request_j) - failed]
    return float(request_j[kept].sum()), float((passes * awake_j)[kept].sum())


def _pass_shares(
    workload: Workload, price: list[Prices], stall_ms: float, failed: int
) -> Iterator[Array]:
    """Ways to share out the passes that are needed among the requests: float64[n] each.

    Each is a dual solution, and so gives a bound. The chain's is the best where no request fails.
    """
    models = [
        np.flatnonzero((workload.model == model) & (workload.follows < 0))
        for model in range(len(price))
    ]
    chain = np.zeros(len(workload))
    for requests in models:
        demand = intervals(workload, requests, _POINTS, stall_ms)
        np.add.at(chain, demand.request, heaviest_chain(demand) * demand.passes)
    yield chain
    if failed == 0 or len(workload) == 0:
        return
    own_j = token_energy_j(workload, price)
    pass_j = np.array([p.pass_j for p in price])
    limit_j = _LIMIT * float(np.mean(own_j + chain * pass_j[workload.model]))
    raised: list[bool] = []
    while len(raised) < _TRIES and len(set(raised)) < 2:
        capped, too_dear = np.zeros(len(workload)), 0.0
        for model, requests in enumerate(models):
            too_dear += _add_capped(
                capped, workload, requests, pass_j[model], own_j, limit_j, stall_ms
            )
        yield capped
        # The best bound is concave in the limit: it rises while more than may fail are too dear.
        raised.append(too_dear > failed)
        limit_j *= _STEP if raised[-1] else 1.0 / _STEP


def _add_capped(
    passes: Array,
    workload: Workload,
    requests: Index,
    pass_j: float,
    own_j: Array,
    limit_j: float,
    stall_ms: float,
) -> float:
    """Adds one model's passes; of a model with many requests only every few have intervals.

    Returns:
        How many requests it is better to fail than to serve at this limit.
    """
    if len(requests) == 0:
        return 0.0
    some = requests[:: -(-2 * len(requests) // _ROWS)]
    points = min(16, _ROWS // len(some) - 1)
    demand = intervals(workload, some, points, stall_ms)
    weights, too_dear = capped_weights(demand, pass_j, own_j, limit_j)
    np.add.at(passes, demand.request, weights * demand.passes)
    return too_dear
