"""Figures of bars: energy by kind, attainment, ablations."""

from __future__ import annotations

from collections.abc import Sequence

from festina.report.figures import (
    NONE,
    Figure,
    kilojoules,
    percent,
    plain,
    policy_colour,
    times,
)
from festina.report.ratios import above_oracle, best_baseline_attainment, energy_ratio
from festina.report.svg.bars import Bar, BarChart, Part, Rule, bar_chart
from festina.report.svg.elements import Key
from festina.simulator.policies import FESTINA
from festina.simulator.report import Ablation, SimulationReport
from festina.simulator.result import ENERGY_KINDS, PolicyResult

ALLOWED_LOSS = 0.02
"""Attainment that an energy-saving policy may lose against the best baseline."""


def energy_figure(report: SimulationReport) -> Figure:
    """Energy of each policy, stacked by kind, with the oracle's bound."""
    bars = [_energy_bar(report, result) for result in report.results]
    bound = report.oracle_energy_j
    drawing = bar_chart(
        BarChart(
            name=f"Energy by policy and kind on {report.workload}",
            bars=bars,
            tick=kilojoules,
            axis="energy of all GPUs, kJ (modelled)",
            keys=[Key(kind, f"kind-{kind}") for kind in ENERGY_KINDS],
            rules=[Rule(bound, f"lower bound {kilojoules(bound)} kJ")] if bound else [],
        )
    )
    rows = []
    for result in report.results:
        cells = [kilojoules(value) for value in result.energy_by.parts().values()]
        ratio = times(energy_ratio(report, result))
        above = percent(above_oracle(report, result))
        rows.append((result.policy, kilojoules(result.energy_j), *cells, ratio, above))
    return Figure(
        title="Energy",
        caption="Joules of all GPUs by what they were spent on. The number at the end of a bar is "
        "its multiple of festina's energy."
        + (
            f" No policy can attain {percent(report.oracle_attainment, 2)} and stay below the "
            "dashed line."
            if bound
            else ""
        ),
        drawing=drawing,
        headings=(
            "policy",
            "kJ",
            *(f"{kind} kJ" for kind in ENERGY_KINDS),
            "× festina",
            "above bound",
        ),
        rows=tuple(rows),
        wide=True,
    )


def _energy_bar(report: SimulationReport, result: PolicyResult) -> Bar:
    parts = tuple(
        Part(value, f"kind-{kind}", f"{result.policy}, {kind}: {kilojoules(value)} kJ")
        for kind, value in result.energy_by.parts().items()
    )
    ratio = energy_ratio(report, result)
    note = f"{kilojoules(result.energy_j)} kJ"
    if ratio is not None and result.policy != FESTINA:
        note += f"   {times(ratio)}"
    if result.interrupted:
        note += "   stopped early"
    return Bar(result.policy, parts, note, strong=result.policy == FESTINA)


def attainment_figure(report: SimulationReport) -> Figure:
    """Share of requests that met their objectives, by policy."""
    bars = [
        Bar(
            result.policy,
            (Part(100 * result.slo_attainment, _accent(result.policy), result.policy),),
            percent(result.slo_attainment, 2),
            strong=result.policy == FESTINA,
        )
        for result in report.results
    ]
    best = best_baseline_attainment(report)
    floor = None if best is None else best - ALLOWED_LOSS
    drawing = bar_chart(
        BarChart(
            name=f"Attainment of the objectives by policy on {report.workload}",
            bars=bars,
            tick=lambda value: f"{value:g}%",
            axis="requests within both objectives (modelled)",
            rules=[] if floor is None else [Rule(100 * floor, f"objective {percent(floor)}")],
            top=100,
            width=510,
        )
    )
    rows = tuple(
        (
            result.policy,
            percent(result.slo_attainment, 2),
            percent(result.ttft_attainment, 2),
            percent(result.tbt_attainment, 2),
            percent(result.cold_start_attainment, 2),
            plain(result.completed),
            plain(result.failed),
            plain(result.rejected),
        )
        for result in report.results
    )
    return Figure(
        title="Attainment",
        caption=f"Share of all submitted requests whose TTFT and p99 TBT were both within the "
        f"“{report.slo}” objectives."
        + ("" if floor is None else " Dashed: two points below the best baseline."),
        drawing=drawing,
        headings=(
            "policy",
            "both",
            "TTFT",
            "TBT",
            "met a cold start",
            "completed",
            "failed",
            "rejected",
        ),
        rows=rows,
    )


def _accent(policy: str) -> str:
    return policy_colour(policy) if policy == FESTINA else "kind-idle"


def ablation_figure(report: SimulationReport, ladder: str) -> Figure | None:
    """Energy of the runs of one ladder against the whole policy; None if there are none."""
    runs = [run for run in report.ablation if run.ladder == ladder]
    if not runs:
        return None
    alone = ladder == FESTINA
    base = runs[0] if alone else runs[-1]
    drawing = bar_chart(
        BarChart(
            name=f"Ablation of {ladder} on {report.workload}",
            bars=_ablation_bars(runs, base),
            tick=kilojoules,
            axis="energy of all GPUs, kJ (modelled)",
            width=510,
        )
    )
    rows = tuple(
        (
            run.label,
            kilojoules(run.result.energy_j),
            _change(run, base),
            percent(run.result.slo_attainment, 2),
        )
        for run in runs
    )
    return Figure(
        title=f"Ablation of {ladder}",
        caption="Each improvement switched off alone; the change is against all of them on."
        if alone
        else "The paper's own ladder: each row adds a rule to those above; the change is against "
        "all of them.",
        drawing=drawing,
        headings=("without" if alone else "with", "kJ", "change", "attainment"),
        rows=rows,
    )


def _ablation_bars(runs: Sequence[Ablation], base: Ablation) -> list[Bar]:
    bars = []
    for run in runs:
        whole = run is base
        energy = f"{kilojoules(run.result.energy_j)} kJ"
        hint = f"{run.label}: {energy}, {_change(run, base)}"
        colour = policy_colour(run.ladder) if whole else "kind-idle"
        part = Part(run.result.energy_j, colour, hint)
        bars.append(Bar(run.label, (part,), energy if whole else _change(run, base), strong=whole))
    return bars


def _change(run: Ablation, base: Ablation) -> str:
    if not base.result.energy_j:
        return NONE
    change = round(run.result.energy_j / base.result.energy_j - 1, 3)
    return f"{change + 0.0:+.1%}"  # adding 0 turns -0 into 0
