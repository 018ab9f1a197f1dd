"""One picture that sums up several workloads, as an SVG file of its own."""

from __future__ import annotations

from collections.abc import Sequence

from festina.errors import BadRequestError
from festina.report.simulation_dots import ratio_chart
from festina.report.simulation_html import style_sheet
from festina.report.svg.dots import dot_chart
from festina.report.svg.elements import Drawing, element, group, label
from festina.simulator.policies import FESTINA
from festina.simulator.report import SimulationReport

WIDTH_PX = 860
MARGIN_PX = 24
HEAD_PX = 62


def summary_svg(reports: Sequence[SimulationReport]) -> str:
    """Energy of each policy as a multiple of festina's: a dot a workload, and the mean.

    Raises:
        BadRequestError: No report has both festina and another policy.
    """
    chart = ratio_chart(reports, width=WIDTH_PX - 2 * MARGIN_PX)
    if chart is None:
        raise BadRequestError(
            "no ratio can be formed", field="results", expected=f"{FESTINA} and another policy"
        )
    inner = dot_chart(chart)
    height = HEAD_PX + inner.height + MARGIN_PX
    parts = (
        element("style", style_sheet()),
        element("title", chart.name),
        element("rect", width=WIDTH_PX, height=height, rx=10, style="fill:var(--card)"),
        label(
            MARGIN_PX, 30, "Energy for the same requests, as a multiple of festina's", kind="title"
        ),
        label(MARGIN_PX, 49, _facts(reports), kind="tick"),
        group(inner.parts, transform=f"translate({MARGIN_PX} {HEAD_PX})"),
    )
    return str(Drawing(WIDTH_PX, height, chart.name, parts).svg()) + "\n"


def _facts(reports: Sequence[SimulationReport]) -> str:
    first = reports[0]
    clusters = {f"{one.gpus} × {one.gpu}, “{one.slo}” objectives" for one in reports}
    where = clusters.pop() if len(clusters) == 1 else "several clusters"
    stand_ins = " (stand-ins)" if any(one.synthetic for one in reports) else ""
    return (
        f"modelled: {where}, {len(reports)} workloads{stand_ins}, festina {first.version}; "
        "right of the line, festina needs less"
    )
