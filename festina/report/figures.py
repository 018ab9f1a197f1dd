"""A figure of a report: a drawing, what it says, and the numbers behind it."""

from __future__ import annotations

from dataclasses import dataclass

from festina.report.svg.elements import Drawing

NONE = "-"
POLICY_COLOURS = (
    "festina",
    "festina-paper",
    "serverlessllm",
    "muxserve",
    "dilu",
    "aegaeon",
    "aegvoltana",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        title: What it shows.
        caption: How to read it, one or two sentences.
        drawing: The picture.
        headings: Of the table of numbers.
        rows: Its cells; the first of each row is its heading.
        wide: Whether it takes the full width of the page.
    """

    title: str
    caption: str
    drawing: Drawing
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    wide: bool = False


def policy_colour(policy: str) -> str:
    """CSS variable of a policy; those we do not know share one."""
    return f"policy-{policy}" if policy in POLICY_COLOURS else "policy-other"


def kilojoules(value_j: float) -> str:
    """Joules as kJ with thousands separated."""
    value = value_j / 1e3
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return NONE if value is None else f"{value:.{digits}%}"


def points(value: float | None) -> str:
    """A difference of shares in percentage points."""
    return NONE if value is None else f"{100 * value:+.1f}"


def times(value: float | None) -> str:
    """A ratio."""
    return NONE if value is None else f"{value:.2f}×"


def milliseconds(value: float | None) -> str:
    """A latency with its unit: ms below one second, s above."""
    if value is None:
        return NONE
    if value >= 1e3:
        return f"{value / 1e3:.3g} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"


def plain(value: float | None, digits: int = 0) -> str:
    """A number with thousands separated."""
    return NONE if value is None else f"{value:,.{digits}f}"
