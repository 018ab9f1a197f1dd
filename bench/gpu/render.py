"""A run's curves as one SVG, and its figures as a Markdown page."""

from __future__ import annotations

from festina.report.simulation_html import style_sheet
from festina.report.svg.elements import Drawing, element, group, label
from festina.report.svg.lines import LEFT_PX, RIGHT_PX, Line, LineChart, Panel, line_chart
from festina.report.svg.scales import Linear, Log, Scale, roof

from .figures import Result, Series, wanted_table

WIDTH_PX = 620
MARGIN_PX = 24
HEAD_PX = 80
GAP_PX = 34
LOG_FROM = 20.0
"""An axis whose ends are farther apart than this is logarithmic."""
_COLOURS = (
    "policy-festina",
    "policy-serverlessllm",
    "policy-dilu",
    "policy-aegaeon",
    "policy-muxserve",
    "policy-aegvoltana",
    "policy-other",
)
TEST_DATA = "test data: nothing here was measured"


def picture(result: Result) -> str:
    """All curves of a run, one above the other."""
    top, parts = float(HEAD_PX), []
    for series in result.series:
        drawing = line_chart(_chart(series))
        parts.append(label(MARGIN_PX, top, series.name, kind="panel"))
        parts.append(group(drawing.parts, transform=f"translate({MARGIN_PX} {top + 8})"))
        top += drawing.height + GAP_PX
    height = top if result.series else HEAD_PX + MARGIN_PX
    frame = (
        element("style", style_sheet()),
        element("title", f"Measured on {result.device}"),
        element("rect", width=WIDTH_PX, height=height, rx=10, style="fill:var(--card)"),
        label(MARGIN_PX, 30, result.device, kind="title"),
        label(MARGIN_PX, 49, _facts(result), kind="tick"),
    )
    name = f"Curves measured on {result.device}"
    return str(Drawing(WIDTH_PX, height, name, (*frame, *parts)).svg()) + "\n"


def page(result: Result, picture_name: str) -> str:
    """The figures with their bars, the picture and what could not be measured."""
    values = {one.name: one.value for one in result.figures if one.value is not None}
    lines = [f"# {result.device}", ""]
    if result.test_data:
        lines += [f"**{TEST_DATA}**", ""]
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines += [
        f"- Driver: {result.driver}",
        f"- Date: {result.date}",
        f"- Command: `{result.command}`",
        f"- Clocks: {result.clocks}",
        f"- {versions}",
        "",
        wanted_table(values),
    ]
    if result.series:
        lines += [f"![Curves measured on {result.device}]({picture_name})", ""]
    if result.unavailable:
        lines += ["Not on this machine:", "", *(f"- {one}" for one in result.unavailable), ""]
    if result.problems:
        lines += ["Not measured:", "", *(f"- {one}" for one in result.problems), ""]
    return "\n".join(lines)


def _facts(result: Result) -> str:
    facts = f"driver {result.driver}, {result.date}, clocks: {result.clocks}"
    return f"{TEST_DATA}; {facts}" if result.test_data else facts


def _chart(series: Series) -> LineChart:
    points = [point for line in series.lines.values() for point in line]
    places = [x for x, _ in points]
    start, end = LEFT_PX, WIDTH_PX - 2 * MARGIN_PX - RIGHT_PX
    lines = tuple(
        Line(name, _COLOURS[number % len(_COLOURS)], tuple(line))
        for number, (name, line) in enumerate(series.lines.items())
    )
    panel = Panel(series.y, lines, 0.0, roof(max(y for _, y in points)), _plain)
    return LineChart(
        name=series.name,
        panels=(panel,),
        x=_scale(min(places), max(places), start, end),
        tick=_plain,
        axis=series.x,
        width=WIDTH_PX - 2 * MARGIN_PX,
    )


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    if low > 0.0 and high / low > LOG_FROM:
        return Log(low, high, start, end)
    return Linear(min(0.0, low), high if high > low else low + 1.0, start, end)


def _plain(value: float) -> str:
    return f"{value:g}"
