"""Lines over one axis: distributions and courses over time, in panels above each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from festina.report.svg.elements import (
    Drawing,
    Key,
    element,
    group,
    label,
    legend,
    line,
)
from festina.report.svg.scales import Linear, Scale

LEFT_PX = 52
RIGHT_PX = 14
GAP_PX = 36


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        label: For the legend and the pointer.
        colour: CSS variable.
        points: (x, y), ascending in x; None breaks the line.
        strong: Whether it stands out.
        dashed: Whether it is dashed.
    """

    label: str
    colour: str
    points: Sequence[tuple[float, float] | None]
    strong: bool = False
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines that share a y axis.

    Attributes:
        title: Above it.
        lines: Drawn in this order, the strong ones last.
        low: Least y.
        high: Greatest y.
        tick: Text of a y.
    """

    title: str
    lines: Sequence[Line]
    low: float
    high: float
    tick: Callable[[float], str]


@dataclass(frozen=True, slots=True)
class LineChart:
    """Panels that share an x axis.

    Attributes:
        name: What the picture shows, in one sentence.
        panels: From top to bottom.
        x: Scale that spans `LEFT_PX` to width − `RIGHT_PX`.
        tick: Text of an x.
        axis: What x measures.
        marks: x of vertical rules.
        width: Pixels.
        panel_px: Height of a panel.
    """

    name: str
    panels: Sequence[Panel]
    x: Scale
    tick: Callable[[float], str]
    axis: str
    marks: Sequence[tuple[float, str]] = ()
    width: int = 510
    panel_px: int = 220


def line_chart(chart: LineChart) -> Drawing:
    """The drawing."""
    first = chart.panels[0].lines
    keys = [Key(one.label, one.colour, "dashed" if one.dashed else "line") for one in first]
    head, top = legend(keys, LEFT_PX, 10, chart.width - LEFT_PX - RIGHT_PX)
    parts = [head]
    for panel in chart.panels:
        top += GAP_PX if panel.title else 6
        parts.append(_panel(panel, chart, top))
        top += chart.panel_px
    for tick in chart.x.ticks():
        at = chart.x.at(tick)
        parts.append(label(at, top + 16, chart.tick(tick), anchor="middle", kind="tick"))
    middle = (LEFT_PX + chart.width - RIGHT_PX) / 2
    parts.append(label(middle, top + 34, chart.axis, anchor="middle", kind="axis"))
    return Drawing(chart.width, top + 42, chart.name, tuple(parts))


def _panel(panel: Panel, chart: LineChart, top: float) -> Markup:
    bottom, right = top + chart.panel_px, chart.width - RIGHT_PX
    y = Linear(panel.low, panel.high, bottom, top, 5 if chart.panel_px > 150 else 4)
    parts = [label(LEFT_PX, top - 8, panel.title, kind="panel")] if panel.title else []
    for tick in y.ticks():
        parts.append(line(LEFT_PX, y.at(tick), right, y.at(tick), "grid"))
        parts.append(
            label(LEFT_PX - 7, y.at(tick) + 4, panel.tick(tick), anchor="end", kind="tick")
        )
    for value, text in chart.marks:
        at = chart.x.at(value)
        parts.append(line(at, top, at, bottom, "rule"))
        parts.append(label(at + 4, bottom - 6, text, kind="rule-label"))
    ordered = sorted(panel.lines, key=lambda one: one.strong)
    return group((*parts, *(_line(one, chart.x, y) for one in ordered)))


def _line(one: Line, x: Scale, y: Scale) -> Markup:
    steps, pen = [], "M"
    for point in one.points:
        if point is None:
            pen = "M"
            continue
        steps.append(f"{pen}{x.at(point[0]):.1f} {y.at(point[1]):.1f}")
        pen = "L"
    kind = "line" + " strong" * one.strong + " dashed" * one.dashed
    style = f"stroke:var(--{one.colour})"
    return element("path", element("title", one.label), class_=kind, d="".join(steps), style=style)
