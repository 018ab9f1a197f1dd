"""Figure of the deployments: who uses the joules, and who misses objectives."""

from __future__ import annotations

from festina.report.figures import Figure, kilojoules, percent, plain
from festina.report.svg.bars import Bar, BarChart, Part, bar_chart
from festina.simulator.policies import FESTINA
from festina.simulator.report import SimulationReport

ROWS_MAX = 8
"""Deployments that get a bar; the table has them all."""


def models_figure(report: SimulationReport) -> Figure | None:
    """Joules and attainment by deployment, of festina or the first policy; None if unknown."""
    subject = report.of(FESTINA) or report.results[0]
    models = sorted(subject.per_model, key=lambda model: -model.energy_j)
    if not models:
        return None
    bars = [
        Bar(
            model.name,
            (
                Part(
                    model.energy_j, "kind-active", f"{model.name}: {kilojoules(model.energy_j)} kJ"
                ),
            ),
            percent(model.attainment),
        )
        for model in models[:ROWS_MAX]
    ]
    drawing = bar_chart(
        BarChart(
            name=f"Energy by deployment under {subject.policy} on {report.workload}",
            bars=bars,
            tick=kilojoules,
            axis="energy of its requests, kJ (modelled)",
            width=510,
        )
    )
    rows = tuple(
        (
            model.name,
            plain(model.requests),
            kilojoules(model.energy_j),
            percent(model.attainment, 2),
        )
        for model in models
    )
    shown = f"the {ROWS_MAX} that use most" if len(models) > ROWS_MAX else "all of them"
    return Figure(
        title="Deployments",
        caption=f"Energy by deployment under {subject.policy}, {shown}; at the right, their "
        "attainment.",
        drawing=drawing,
        headings=("deployment", "requests", "kJ", "attainment"),
        rows=rows,
    )
