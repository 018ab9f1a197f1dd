"""Figure of attainment over several workloads: joules saved by missing objectives would show."""

from __future__ import annotations

from collections.abc import Sequence

from festina.report.figures import NONE, Figure, percent, policy_colour
from festina.report.ratios import label_of
from festina.report.svg.dots import Dot, DotChart, Row, dot_chart
from festina.report.svg.elements import Key
from festina.report.svg.scales import Linear
from festina.simulator.policies import FESTINA
from festina.simulator.report import SimulationReport


def attainment_dots(reports: Sequence[SimulationReport]) -> Figure | None:
    """Attainment: a row for each policy, a dot for each workload; None without results."""
    policies = tuple(dict.fromkeys(one.policy for report in reports for one in report.results))
    if not policies:
        return None
    rows = [_row(policy, reports) for policy in policies]
    low = min(dot.value for row in rows for dot in row.dots)
    chart = DotChart(
        name="Attainment of the objectives by policy, by workload",
        rows=rows,
        scale=lambda start, end: Linear(min(90.0, 10 * (low // 10)), 100.0, start, end, 10),
        tick=lambda value: f"{value:g}%",
        axis="requests within both objectives (modelled)",
        keys=[Key("one workload", "policy-other", "dot")],
        row_px=34,
    )
    cells = tuple(
        (policy, *(percent(_attainment(report, policy), 2) for report in reports))
        for policy in policies
    )
    return Figure(
        title="Attainment",
        caption="Share of requests within their objectives. Joules of policies that attain less do "
        "not buy the same service: read the ratios with this in mind. At the right, the worst.",
        drawing=dot_chart(chart),
        headings=("policy", *(label_of(report) for report in reports)),
        rows=cells,
        wide=True,
    )


def _row(policy: str, reports: Sequence[SimulationReport]) -> Row:
    found = {label_of(report): _attainment(report, policy) for report in reports}
    dots = tuple(
        Dot(100 * share, f"{policy} on {workload}: {percent(share)}", policy_colour(policy))
        for workload, share in found.items()
        if share is not None
    )
    worst = f"{min(dot.value for dot in dots):.1f}%" if dots else NONE
    return Row(policy, dots, worst, strong=policy == FESTINA)


def _attainment(report: SimulationReport, policy: str) -> float | None:
    result = report.of(policy)
    return None if result is None else result.slo_attainment
