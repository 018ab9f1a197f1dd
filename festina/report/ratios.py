"""How policies compare: energy ratios against festina, over one workload and over several. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from festina.simulator.policies import FESTINA
from festina.simulator.report import SimulationReport
from festina.simulator.result import PolicyResult

OURS = (FESTINA, "festina-paper")
"""Policies that are no baseline."""

PAPER_RATIO: Mapping[str, float] = MappingProxyType(
    {"serverlessllm": 1.56, "muxserve": 1.37, "dilu": 1.36, "aegaeon": 1.31, "aegvoltana": 1.30}
)
"""Energy of a baseline divided by that of Festina, as arXiv 2606.30391 reports it."""


def energy_ratio(
    report: SimulationReport, result: PolicyResult, over: str = FESTINA
) -> float | None:
    """E / E of policy `over`; None if either is missing, stopped early or zero."""
    base = report.of(over)
    if base is None or base.interrupted or result.interrupted or not base.energy_j:
        return None
    return result.energy_j / base.energy_j


def above_oracle(report: SimulationReport, result: PolicyResult) -> float | None:
    """How far its energy is above the lower bound, as a share of the bound; None without one."""
    if not report.oracle_energy_j or result.interrupted:
        return None
    return result.energy_j / report.oracle_energy_j - 1


def best_baseline_attainment(report: SimulationReport) -> float | None:
    """The highest attainment of the policies that are not ours."""
    others = [result.slo_attainment for result in report.results if result.policy not in OURS]
    return max(others, default=None)


def attainment_lead(report: SimulationReport) -> float | None:
    """Attainment of festina minus that of the best baseline; None without one of them."""
    own, best = report.of(FESTINA), best_baseline_attainment(report)
    return None if own is None or best is None else own.slo_attainment - best


def geometric_mean(values: Iterable[float]) -> float | None:
    """Of positive values; None of none."""
    logs = [math.log(value) for value in values]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def ratios(reports: Sequence[SimulationReport], over: str = FESTINA) -> dict[str, dict[str, float]]:
    """Policy → label of the report → E / E of `over`, policies in order of appearance."""
    found: dict[str, dict[str, float]] = {}
    for report in reports:
        for result in report.results:
            ratio = energy_ratio(report, result, over)
            if ratio is not None and result.policy != over:
                found.setdefault(result.policy, {})[label_of(report)] = ratio
    return found


def label_of(report: SimulationReport) -> str:
    """The workload, with its load where that is not 1."""
    return report.workload if report.load == 1 else f"{report.workload} ×{report.load:g}"
