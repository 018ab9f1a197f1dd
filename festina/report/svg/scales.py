"""From values to pixels, and where to put the ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Scale(Protocol):
    """Maps values to pixels."""

    def at(self, value: float) -> float:
        """Pixel of a value; values outside are clamped to the ends."""

    def ticks(self) -> tuple[float, ...]:
        """Round values within the range, ascending."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Equal steps.

    Attributes:
        low: Value at `start`.
        high: Value at `end`; more than `low`.
        start: Pixel.
        end: Pixel; may be less than `start`.
        most: Ticks wanted at most.
    """

    low: float
    high: float
    start: float
    end: float
    most: int = 6

    def at(self, value: float) -> float:
        """As `Scale.at`."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> tuple[float, ...]:
        """As `Scale.ticks`: multiples of 1, 2 or 5 times a power of ten."""
        step = nice_step((self.high - self.low) / self.most)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return tuple(index * step for index in range(first, last + 1))


@dataclass(frozen=True, slots=True)
class Log:
    """Equal ratios; fields as `Linear`, `low` more than 0.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Pixel.
        end: Pixel.
        most: Ticks at most.
    """

    low: float
    high: float
    start: float
    end: float
    most: int = 8

    def at(self, value: float) -> float:
        """As `Scale.at`."""
        inside = min(max(value, self.low), self.high)
        share = math.log(inside / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> tuple[float, ...]:
        """As `Scale.ticks`: the densest of a few round series that is not too dense."""
        for marks in _MARKS:
            ticks = self._within(marks)
            if len(ticks) <= self.most:
                return ticks
        return self._within(_MARKS[-1])

    def _within(self, marks: tuple[float, ...]) -> tuple[float, ...]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        values = (mark * 10.0**power for power in range(first, last + 1) for mark in marks)
        low, high = self.low * (1 - 1e-9), self.high * (1 + 1e-9)
        return tuple(value for value in values if low <= value <= high)


_MARKS = (
    (1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
    (1, 1.5, 2, 3, 4, 5, 7),
    (1, 2, 5),
    (1,),
)


def nice_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def roof(value: float, most: int = 6) -> float:
    """A round value at or above `value`, a whole number of tick steps; 1 for 0."""
    if value <= 0:
        return 1.0
    step = nice_step(value / most)
    return math.ceil(value / step - 1e-9) * step
