"""What agents have added up since they started, for Prometheus; see `festina.account`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from festina.account import WAKE_S, Account, MoveKind, MoveOutcome, WakeTimes
from festina.gateway.saved import Saved
from festina.messages import AgentInfo
from festina.types import Provenance

NOBODY = ""
"""The model of the energy that no request used."""


def account_metrics(agents: tuple[AgentInfo, ...]) -> Iterator[Metric]:
    """Families of all agents that have told an account."""
    energy = CounterMetricFamily(
        "festina_energy_joules",
        "All that the GPU used: for prompts and for outputs of each model, and idle for nobody",
        labels=("gpu", "model", "phase", "source"),
    )
    moves = CounterMetricFamily(
        "festina_migrations",
        "Requests that were to move to another GPU, by how that ended",
        labels=("gpu", "kind", "outcome"),
    )
    wakes = HistogramMetricFamily(
        "festina_wake_seconds", "From the wish to wake a parked GPU to its context", labels=("gpu",)
    )
    lost = CounterMetricFamily(
        "festina_trace_lost_events", "Not in the trace: its disk is full or slow", labels=("gpu",)
    )
    for agent in agents:
        if agent.account is None:
            continue
        _add_energy(energy, agent, agent.account)
        told = {(one.kind, one.outcome): one.count for one in agent.account.moves}
        for kind in get_args(MoveKind):
            for outcome in get_args(MoveOutcome):
                moves.add_metric((agent.agent, kind, outcome), told.get((kind, outcome), 0))
        wakes.add_metric((agent.agent,), _buckets(agent.account.wakes), agent.account.wakes.sum_s)
        lost.add_metric((agent.agent,), agent.account.lost_events)
    yield from (energy, moves, wakes, lost)


def saved_metric(saved: Saved) -> Metric:
    """Joules saved, by what saved them."""
    family = GaugeMetricFamily(
        "festina_saved_joules",
        "Less than at the highest clock, and than with every GPU awake, since its savers started",
        labels=("by", "source"),
    )
    modelled = Provenance.MODELLED.value
    family.add_metric(("clock", modelled), saved.clock_j)
    family.add_metric(("parking", modelled), saved.parking_j)
    return family


def _add_energy(family: CounterMetricFamily, agent: AgentInfo, account: Account) -> None:
    source = agent.summary.power_source.value
    for model in account.energy:
        family.add_metric((agent.agent, model.model, "prefill", source), model.prefill_j)
        family.add_metric((agent.agent, model.model, "decode", source), model.decode_j)
    family.add_metric((agent.agent, NOBODY, "idle", source), account.idle_j)


def _buckets(wakes: WakeTimes) -> list[tuple[str, float]]:
    """Pairs of upper bound and how many took no longer."""
    counts = wakes.counts or (0,) * (len(WAKE_S) + 1)
    bounds = [*map(str, WAKE_S), "+Inf"]
    return [(bound, float(count)) for bound, count in zip(bounds, accumulate(counts), strict=True)]
