"""The numbers that sum up several workloads, as cells of a table."""

from __future__ import annotations

from collections.abc import Sequence

from festina.report.figures import NONE, percent, points, times
from festina.report.ratios import (
    PAPER_RATIO,
    above_oracle,
    attainment_lead,
    geometric_mean,
    label_of,
    ratios,
)
from festina.simulator.policies import FESTINA
from festina.simulator.report import SimulationReport


def ratio_rows(reports: Sequence[SimulationReport]) -> tuple[tuple[str, ...], ...]:
    """E / E_festina of each policy by workload, with mean and paper; then how festina stands."""
    labels = [label_of(report) for report in reports]
    rows = [
        (
            policy,
            *(times(by_workload.get(name)) for name in labels),
            times(geometric_mean(by_workload.values())),
            times(PAPER_RATIO.get(policy)),
        )
        for policy, by_workload in ratios(reports).items()
    ]
    own = [report.of(FESTINA) for report in reports]
    pairs = list(zip(reports, own, strict=True))
    if any(report.oracle_energy_j for report in reports):
        bounds = (percent(above_oracle(report, one), 0) if one else NONE for report, one in pairs)
        rows.append(("festina above the bound", *bounds, "", ""))
    attained = (percent(one.slo_attainment) if one else NONE for one in own)
    rows.append(("festina's attainment", *attained, "", ""))
    leads = (points(attainment_lead(report)) for report in reports)
    rows.append(("to the best baseline, points", *leads, "", ""))
    return tuple(rows)
