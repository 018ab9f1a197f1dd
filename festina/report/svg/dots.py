"""Rows of dots on one axis: a value for each of several cases, and their spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from festina.report.svg.elements import (
    CHARACTER_PX,
    Drawing,
    Key,
    element,
    group,
    label,
    legend,
    line,
    mark,
)
from festina.report.svg.scales import Scale


@dataclass(frozen=True, slots=True)
class Dot:
    """A mark.

    Attributes:
        value: Where.
        hint: Shown when the pointer rests on it.
        colour: CSS variable.
        form: As `festina.report.svg.elements.mark`.
    """

    value: float
    hint: str
    colour: str
    form: str = "dot"


@dataclass(frozen=True, slots=True)
class Row:
    """Marks of one thing.

    Attributes:
        label: At the left.
        dots: Marks.
        note: At the right.
        heading: Opens a group above this row, or "".
        strong: Whether its label stands out.
    """

    label: str
    dots: tuple[Dot, ...]
    note: str = ""
    heading: str = ""
    strong: bool = False


@dataclass(frozen=True, slots=True)
class DotChart:
    """Rows on one axis.

    Attributes:
        name: What the picture shows, in one sentence.
        rows: From top to bottom.
        scale: Makes the scale of the axis from its first and last pixel.
        tick: Text of a value.
        axis: What the axis measures.
        keys: Legend.
        marks: Values of vertical rules.
        width: Pixels.
        row_px: Height of a row.
    """

    name: str
    rows: Sequence[Row]
    scale: Callable[[float, float], Scale]
    tick: Callable[[float], str]
    axis: str
    keys: Sequence[Key] = ()
    marks: Sequence[float] = ()
    width: int = 1040
    row_px: int = 26


def dot_chart(chart: DotChart) -> Drawing:
    """The drawing."""
    left = 14 + CHARACTER_PX * max(len(row.label) for row in chart.rows)
    right = 16 + CHARACTER_PX * max(len(row.note) for row in chart.rows)
    x = chart.scale(left, chart.width - right)
    head, start = legend(chart.keys, left, 10, chart.width - left) if chart.keys else (Markup(), 4)
    parts, top = [], start
    for row in chart.rows:
        if row.heading:
            parts.append(label(0, top + 17, row.heading, kind="panel"))
            top += 24
        parts.append(_row(row, x, left, chart, top + chart.row_px / 2))
        top += chart.row_px
    grid = [line(x.at(tick), start, x.at(tick), top, "grid") for tick in x.ticks()]
    grid += [line(x.at(mark), start, x.at(mark), top, "rule") for mark in chart.marks]
    axis = [
        label(x.at(tick), top + 16, chart.tick(tick), anchor="middle", kind="tick")
        for tick in x.ticks()
    ]
    middle = (left + chart.width - right) / 2
    axis.append(label(middle, top + 34, chart.axis, anchor="middle", kind="axis"))
    return Drawing(chart.width, top + 42, chart.name, (head, *grid, *parts, *axis))


def _row(row: Row, x: Scale, left: float, chart: DotChart, y: float) -> Markup:
    strength = " strong" * row.strong
    parts = [label(left - 10, y + 4, row.label, anchor="end", kind="label" + strength)]
    places = [x.at(dot.value) for dot in row.dots if dot.form != "tick"]
    if places:
        parts.append(line(min(places), y, max(places), y, "spread"))
    parts += [
        mark(x.at(dot.value), y, dot.colour, dot.form, element("title", dot.hint))
        for dot in row.dots
    ]
    parts.append(label(chart.width, y + 4, row.note, anchor="end", kind="note" + strength))
    return group(parts)
