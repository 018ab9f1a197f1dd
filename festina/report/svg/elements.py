"""SVG elements as text. Colours are CSS variables, so that one drawing serves light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

CHARACTER_PX = 7.2
"""Mean width of a character of the 12 px labels in a wide font; lays out legends and margins."""


def element(name: str, *content: str, **attributes: str | float) -> Markup:
    """`<name attributes>content</name>`; text is escaped, `Markup` is not.

    A trailing `_` of an attribute's name is dropped and other `_` become `-`; numbers are rounded
    to tenths of a pixel.
    """
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
    )
    inner = "".join(str(escape(part)) for part in content)
    return Markup(f"<{name}{words}>{inner}</{name}>" if inner else f"<{name}{words}/>")  # noqa: S704


def group(parts: Iterable[Markup], **attributes: str | float) -> Markup:
    """`<g>` around parts."""
    return element("g", *parts, **attributes)


def label(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "label") -> Markup:
    """Text whose baseline starts (or ends, or is centred) at a point; `kind` is its CSS class."""
    return element("text", text, class_=kind, x=x, y=y, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line of a CSS class."""
    return element("line", class_=kind, x1=x1, y1=y1, x2=x2, y2=y2)


def fill(colour: str) -> str:
    """The style that fills with a CSS variable."""
    return f"fill:var(--{colour})"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture with its size.

    Attributes:
        width: Pixels.
        height: Pixels.
        name: What a screen reader says instead of the picture.
        parts: Its elements.
    """

    width: float
    height: float
    name: str
    parts: tuple[Markup, ...]

    def svg(self) -> Markup:
        """The picture as an `<svg>` for a page."""
        return element(
            "svg",
            *self.parts,
            viewBox=f"0 0 {self.width:.0f} {self.height:.0f}",
            xmlns="http://www.w3.org/2000/svg",
            role="img",
            aria_label=self.name,
        )


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend.

    Attributes:
        label: Its text.
        colour: CSS variable.
        form: `box`, `line`, `dashed`, or a form of `mark`.
    """

    label: str
    colour: str
    form: str = "box"


def legend(keys: Iterable[Key], x: float, y: float, width: float) -> tuple[Markup, float]:
    """Entries from left to right, in as many rows as they need, and the height they take."""
    parts, at, row = [], 0.0, 0
    for key in keys:
        wide = 24 + CHARACTER_PX * len(key.label) + 8
        if at and at + wide > width:
            at, row = 0.0, row + 1
        base = y + 18 * row
        parts.append(_swatch(key, x + at, base))
        parts.append(label(x + at + 22, base + 4, key.label))
        at += wide
    return group(parts, class_="legend"), 18.0 * (row + 1) + 8


def mark(x: float, y: float, colour: str, form: str, *content: Markup) -> Markup:
    """A mark centred at a point; `form` is `dot`, `small`, `diamond` or `tick`."""
    style = fill(colour)
    if form == "diamond":
        path = f"M{x:.1f} {y - 8:.1f}l8 8l-8 8l-8 -8z"
        return element("path", *content, class_="mark", d=path, style=style)
    if form == "tick":
        return element("rect", *content, x=x - 1.2, y=y - 9, width=2.4, height=18, style=style)
    radius = 3.2 if form == "small" else 5
    return element("circle", *content, class_="mark", cx=x, cy=y, r=radius, style=style)


def _swatch(key: Key, x: float, y: float) -> Markup:
    if key.form == "box":
        return element("rect", x=x, y=y - 6, width=14, height=12, rx=2, style=fill(key.colour))
    if key.form in ("line", "dashed"):
        dashes = ";stroke-dasharray:5 3" if key.form == "dashed" else ""
        style = f"stroke:var(--{key.colour});stroke-width:2.5{dashes}"
        return element("line", x1=x, y1=y, x2=x + 16, y2=y, style=style)
    return mark(x + 10, y, key.colour, key.form)


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
