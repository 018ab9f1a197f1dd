"""Joules to requests: dynamic energy by work, static energy by residency (DESIGN 4.4)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from festina.types import Phase

Key = TypeVar("Key", bound=Hashable)
Group = tuple[str, Phase]
"""A deployment, and what its requests are at."""


@dataclass(slots=True)
class _Sum:
    """Joules of all that are or were in one group.

    Attributes:
        energy_j: Until the static joules of each resident were `static_each_j`.
        members: Residents now.
        static_each_j: See above.
    """

    energy_j: float = 0.0
    members: int = 0
    static_each_j: float = 0.0

    def until(self, static_each_j: float) -> float:
        """Joules once each resident has been charged so much."""
        return self.energy_j + self.members * (static_each_j - self.static_each_j)

    def fold(self, static_each_j: float) -> None:
        """Before a member comes or goes."""
        self.energy_j = self.until(static_each_j)
        self.static_each_j = static_each_j


class EnergyLedger(Generic[Key]):
    """Splits what a device uses over the requests it serves.

    The invariant: joules of all requests, open and closed, plus `idle_j` equal the device's energy
    since the first reading, up to rounding, once `settle` has seen the reading. All operations are
    O(1) but `step`, which is O(requests of the step), and `by_group`.

    Args:
        energy_j: The device's energy counter now.
    """

    def __init__(self, energy_j: float = 0.0) -> None:
        self._last_j = energy_j
        self._dynamic_j = 0.0
        self._charged: dict[Key, float] = {}
        self._group: dict[Key, Group] = {}
        self._sums: dict[Group, _Sum] = {}
        # Static joules per resident request since the start: one number serves all of them.
        self._static_each_j = 0.0
        self._idle_j = 0.0

    @property
    def idle_j(self) -> float:
        """Energy of the time when no request was resident."""
        return self._idle_j

    def by_group(self) -> dict[Group, float]:
        """Joules of each group since the start, in the order of their first request."""
        return {group: one.until(self._static_each_j) for group, one in self._sums.items()}

    def open(self, key: Key, group: Group) -> None:
        """A request becomes resident. Call `settle` first, so that it pays from now on only."""
        if key in self._charged:
            raise KeyError(f"{key} is resident already")
        self._charged[key] = -self._static_each_j
        self._enter(key, group)

    def move(self, key: Key, group: Group) -> None:
        """What a request uses from now on counts there; nothing happens if it has left."""
        if self._group.get(key, group) != group:
            self._leave(key)
            self._enter(key, group)

    def close(self, key: Key) -> float:
        """A request leaves; its joules. Call `settle` first, so that it pays until now."""
        charged_j = self._charged.pop(key) + self._static_each_j
        self._leave(key)
        return charged_j

    def energy_j(self, key: Key) -> float:
        """Joules of a resident request so far."""
        return self._charged[key] + self._static_each_j

    def step(self, dynamic_j: float, work: Mapping[Key, float]) -> None:
        """Charge a step's dynamic energy in proportion to work.

        Args:
            dynamic_j: Dynamic energy of the step, ≥ 0.
            work: Work of each request in it, > 0, in any common unit. Requests that have left
                meanwhile are known no more; their part counts as idle.
        """
        total = sum(work.values())
        self._dynamic_j += dynamic_j
        for key, share in work.items():
            part = dynamic_j * share / total
            if key in self._charged:
                self._charged[key] += part
                self._sums[self._group[key]].energy_j += part
            else:
                self._idle_j += part

    def settle(self, energy_j: float) -> None:
        """Spread what is not dynamic since the last call over the resident requests.

        A sensor may lag behind the steps; a part below zero is carried over, not lost.
        """
        static_j = energy_j - self._last_j - self._dynamic_j
        self._last_j = energy_j
        self._dynamic_j = max(0.0, -static_j)
        static_j = max(0.0, static_j)
        if self._charged:
            self._static_each_j += static_j / len(self._charged)
        else:
            self._idle_j += static_j

    def _enter(self, key: Key, group: Group) -> None:
        self._group[key] = group
        one = self._sums.setdefault(group, _Sum())
        one.fold(self._static_each_j)
        one.members += 1

    def _leave(self, key: Key) -> None:
        one = self._sums[self._group.pop(key)]
        one.fold(self._static_each_j)
        one.members -= 1
