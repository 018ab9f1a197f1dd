"""Figures of dots: ratios by workload, and how they move with the uncertain constants."""

from __future__ import annotations

from collections.abc import Sequence

from festina.report.figures import Figure, policy_colour, times
from festina.report.ratio_rows import ratio_rows
from festina.report.ratios import PAPER_RATIO, geometric_mean, label_of, ratios
from festina.report.svg.dots import Dot, DotChart, Row, dot_chart
from festina.report.svg.elements import Key
from festina.report.svg.scales import Linear, Log, Scale
from festina.simulator.policies import FESTINA
from festina.simulator.report import SensitivityPoint, SimulationReport


def ratio_chart(reports: Sequence[SimulationReport], width: int = 1040) -> DotChart | None:
    """E / E_festina: a row for each policy, a dot for each workload; None without festina."""
    found = ratios(reports)
    if not found:
        return None
    rows = []
    for policy, by_workload in found.items():
        mean = geometric_mean(by_workload.values())
        dots = [
            Dot(value, f"{policy} on {workload}: {times(value)}", policy_colour(policy))
            for workload, value in by_workload.items()
        ]
        if policy in PAPER_RATIO:
            value = PAPER_RATIO[policy]
            dots.insert(0, Dot(value, f"{policy} in the paper: {times(value)}", "muted", "tick"))
        if mean is not None and len(by_workload) > 1:
            hint = f"{policy}, geometric mean: {times(mean)}"
            dots.append(Dot(mean, hint, "ink", "diamond"))
        rows.append(Row(policy, tuple(dots), times(mean)))
    values = [dot.value for row in rows for dot in row.dots]
    low, high = min(0.9, *values) * 0.98, max(1.5, *values) * 1.04
    keys = [Key("one workload", "policy-other", "dot")]
    if len(reports) > 1:
        keys.append(Key("geometric mean", "ink", "diamond"))
    keys.append(Key("ratio in the paper", "muted", "tick"))
    return DotChart(
        name="Energy of each policy as a multiple of festina's, by workload",
        rows=rows,
        scale=lambda start, end: Log(low, high, start, end, most=10),
        tick=lambda value: f"{value:g}×",
        axis="energy as a multiple of festina's (modelled, log scale)",
        keys=keys,
        marks=(1.0,),
        width=width,
        row_px=34,
    )


def ratio_figure(reports: Sequence[SimulationReport]) -> Figure | None:
    """The ratios of all workloads; None without festina."""
    chart = ratio_chart(reports)
    if chart is None:
        return None
    return Figure(
        title="Energy against festina",
        caption="How many times festina's energy each policy needs for the same requests. Right of "
        "the line, festina needs less. Grey ticks: what the paper reports for its own system.",
        drawing=dot_chart(chart),
        headings=("policy", *(label_of(one) for one in reports), "geometric mean", "paper"),
        rows=ratio_rows(reports),
        wide=True,
    )


def sensitivity_figure(report: SimulationReport) -> Figure | None:
    """E / E_festina over the plausible range of each uncertain constant; None without ratios."""
    points = [point for point in report.sensitivity if point.energy_j.get(FESTINA)]
    if not points or len(points[0].energy_j) == 1:
        return None
    rows, cells = [], []
    for knob in dict.fromkeys(point.knob for point in points):
        group = sorted((p for p in points if p.knob == knob), key=lambda point: point.value)
        policies = [policy for policy in group[0].energy_j if policy != FESTINA]
        for index, policy in enumerate(policies):
            heading = _range(group) if index == 0 else ""
            rows.append(_sensitivity_row(policy, group, heading))
        cells += [
            (_setting(point), *(times(_ratio(point, one)) for one in policies)) for point in group
        ]
    values = [dot.value for row in rows for dot in row.dots]
    low, high = min(0.95, *values), max(values) * 1.03

    def scale(start: float, end: float) -> Scale:
        return Linear(low, high, start, end, 8)

    chart = DotChart(
        name=f"Energy ratios over the range of each uncertain constant on {report.workload}",
        rows=rows,
        scale=scale,
        tick=lambda value: f"{value:.3g}×",
        axis="energy as a multiple of festina's (modelled)",
        keys=[
            Key("the default", "policy-other", "dot"),
            Key("end of the range", "policy-other", "small"),
        ],
        marks=(1.0,),
        row_px=20,
    )
    names = [policy for policy in points[0].energy_j if policy != FESTINA]
    return Figure(
        title="Sensitivity",
        caption="Each constant that is uncertain and could decide the result, over its plausible "
        "range, all else at its default. Small dots: its ends.",
        drawing=dot_chart(chart),
        headings=("constant", *names),
        rows=tuple(cells),
        wide=True,
    )


def _sensitivity_row(policy: str, group: Sequence[SensitivityPoint], heading: str) -> Row:
    dots = [
        Dot(
            ratio,
            f"{policy} at {_setting(point)}: {times(ratio)}",
            policy_colour(policy),
            "dot" if point.default else "small",
        )
        for point in group
        if (ratio := _ratio(point, policy)) is not None
    ]
    found = [dot.value for dot in dots]
    note = f"{min(found):.2f} to {max(found):.2f}×" if found else ""
    return Row(policy, tuple(dots), note, heading)


def _ratio(point: SensitivityPoint, policy: str) -> float | None:
    energy_j = point.energy_j.get(policy)
    return None if energy_j is None else energy_j / point.energy_j[FESTINA]


def _setting(point: SensitivityPoint) -> str:
    default = " (default)" if point.default else ""
    return f"{point.knob} = {point.value:g}{' ' * bool(point.unit)}{point.unit}{default}"


def _range(group: Sequence[SensitivityPoint]) -> str:
    unit = f" {group[0].unit}" if group[0].unit else ""
    return f"{group[0].knob}, {group[0].value:g} to {group[-1].value:g}{unit}"
