"""Horizontal bars, plain or stacked, with a note at the end of each and rules across all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from festina.report.svg.elements import (
    CHARACTER_PX,
    Drawing,
    Key,
    element,
    fill,
    group,
    label,
    legend,
    line,
)
from festina.report.svg.scales import Linear, roof

ROW_PX = 30
BAR_PX = 18


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a bar.

    Attributes:
        value: Its length, ≥ 0.
        colour: CSS variable.
        hint: Shown when the pointer rests on it.
    """

    value: float
    colour: str
    hint: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One row.

    Attributes:
        label: At its left.
        parts: From left to right.
        note: At its right.
        strong: Whether its label stands out.
    """

    label: str
    parts: tuple[Part, ...]
    note: str
    strong: bool = False

    @property
    def length(self) -> float:
        """Sum of its parts."""
        return sum(part.value for part in self.parts)


@dataclass(frozen=True, slots=True)
class Rule:
    """A vertical line at a value, across all bars.

    Attributes:
        value: Where.
        label: Above it.
    """

    value: float
    label: str


@dataclass(frozen=True, slots=True)
class BarChart:
    """Bars on one axis from 0.

    Attributes:
        name: What the picture shows, in one sentence.
        bars: From top to bottom.
        tick: Text of a value on the axis.
        axis: What the axis measures.
        keys: Legend, or none.
        rules: Lines across.
        top: End of the axis; a round value above the longest bar if None.
        width: Pixels.
    """

    name: str
    bars: Sequence[Bar]
    tick: Callable[[float], str]
    axis: str
    keys: Sequence[Key] = ()
    rules: Sequence[Rule] = ()
    top: float | None = None
    width: int = 1040


def bar_chart(chart: BarChart) -> Drawing:
    """The drawing."""
    left = 12 + CHARACTER_PX * max(len(bar.label) for bar in chart.bars)
    right = 16 + CHARACTER_PX * max(len(bar.note) for bar in chart.bars)
    head, start = legend(chart.keys, left, 10, chart.width - left) if chart.keys else (Markup(), 4)
    start += 18 * bool(chart.rules)
    longest = max(*(bar.length for bar in chart.bars), *(rule.value for rule in chart.rules), 0.0)
    x = Linear(
        0.0, chart.top or roof(longest), left, chart.width - right, 5 if chart.width < 700 else 8
    )
    end = start + ROW_PX * len(chart.bars)
    parts = [head, *_axis(x, chart, start, end)]
    for index, bar in enumerate(chart.bars):
        parts.append(_row(bar, x, start + ROW_PX * index))
    parts += [_rule(rule, x, start, end) for rule in chart.rules]
    return Drawing(chart.width, end + 40, chart.name, tuple(parts))


def _axis(x: Linear, chart: BarChart, start: float, end: float) -> list[Markup]:
    parts = []
    for tick in x.ticks():
        parts.append(line(x.at(tick), start, x.at(tick), end, "grid"))
        parts.append(label(x.at(tick), end + 16, chart.tick(tick), anchor="middle", kind="tick"))
    parts.append(label((x.start + x.end) / 2, end + 34, chart.axis, anchor="middle", kind="axis"))
    return parts


def _row(bar: Bar, x: Linear, top: float) -> Markup:
    kind = "label strong" if bar.strong else "label"
    middle = top + ROW_PX / 2
    parts = [label(x.start - 8, middle + 4, bar.label, anchor="end", kind=kind)]
    at = 0.0
    for part in bar.parts:
        begin, stop = x.at(at), x.at(at + part.value)
        at += part.value
        if stop - begin < 0.1:
            continue
        parts.append(
            element(
                "rect",
                element("title", part.hint),
                class_="bar",
                x=begin,
                y=middle - BAR_PX / 2,
                width=stop - begin,
                height=BAR_PX,
                style=fill(part.colour),
            )
        )
    parts.append(label(x.at(at) + 8, middle + 4, bar.note, kind=kind.replace("label", "note")))
    return group(parts)


def _rule(rule: Rule, x: Linear, start: float, end: float) -> Markup:
    at = x.at(rule.value)
    beyond = at + CHARACTER_PX * len(rule.label) > x.end
    return group(
        (
            line(at, start - 4, at, end, "rule"),
            label(
                at, start - 9, rule.label, anchor="end" if beyond else "start", kind="rule-label"
            ),
        )
    )
