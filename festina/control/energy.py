"""Joules to requests: dynamic energy by work, static energy by residency (DESIGN 4.4)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class EnergyLedger(Generic[Key]):
    """Splits what a device uses over the requests it serves.

    The invariant: joules of all requests, open and closed, plus `idle_j` equal the device's energy
    since the first reading, up to rounding, once `settle` has seen the reading. All operations are
    O(1) but `step`, which is O(requests of the step).

    Args:
        energy_j: The device's energy counter now.
    """

    def __init__(self, energy_j: float = 0.0) -> None:
        self._last_j = energy_j
        self._dynamic_j = 0.0
        self._charged: dict[Key, float] = {}
        # Static joules per resident request since the start: one number serves all of them.
        self._static_each_j = 0.0
        self._idle_j = 0.0

    @property
    def idle_j(self) -> float:
        """Energy of the time when no request was resident."""
        return self._idle_j

    def open(self, key: Key) -> None:
        """A request becomes resident. Call `settle` first, so that it pays from now on only."""
        if key in self._charged:
            raise KeyError(f"{key} is resident already")
        self._charged[key] = -self._static_each_j

    def close(self, key: Key) -> float:
        """A request leaves; its joules. Call `settle` first, so that it pays until now."""
        return self._charged.pop(key) + self._static_each_j

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
