"""What an agent tells of its past, once a second, within its summaries; see `festina.account`."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

from festina.account import (
    MODELS_MAX,
    OTHERS,
    WAKE_S,
    Account,
    ModelEnergy,
    MoveCount,
    MoveKind,
    MoveOutcome,
    WakeTimes,
)
from festina.control.energy import Group
from festina.types import Phase


class MoveTally:
    """How moves away from one agent ended."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[MoveKind, MoveOutcome]] = Counter()

    def add(self, kind: MoveKind, outcome: MoveOutcome) -> None:
        """One more has ended."""
        self._counts[kind, outcome] += 1

    def told(self) -> tuple[MoveCount, ...]:
        """For the account."""
        return tuple(MoveCount(*key, count) for key, count in sorted(self._counts.items()))


class WakeTally:
    """How long wakes of one device took."""

    def __init__(self) -> None:
        self._counts = [0] * (len(WAKE_S) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect_left(WAKE_S, seconds)] += 1
        self._sum_s += seconds

    def told(self) -> WakeTimes:
        """For the account."""
        return WakeTimes(tuple(self._counts), self._sum_s) if any(self._counts) else WakeTimes()


def account_of(
    idle_j: float,
    energy: Mapping[Group, float],
    moves: MoveTally,
    wakes: WakeTally,
    clock_saved_j: float,
) -> Account:
    """The account now.

    Args:
        idle_j: Joules of nobody.
        energy: Joules of each deployment and phase, in an order that never changes.
        moves: Requests that went elsewhere, or did not.
        wakes: Of the device.
        clock_saved_j: By lower clocks.
    """
    return Account(
        idle_j=max(0.0, idle_j),
        energy=_by_model(energy),
        moves=moves.told(),
        wakes=wakes.told(),
        clock_saved_j=clock_saved_j,
    )


def _by_model(energy: Mapping[Group, float]) -> tuple[ModelEnergy, ...]:
    """Those that came first by their names, so that no sum ever falls."""
    sums: dict[str, list[float]] = {}
    for (model, phase), joules in energy.items():
        name = model if model in sums or len(sums) < MODELS_MAX - 1 else OTHERS
        sums.setdefault(name, [0.0, 0.0])[phase is Phase.DECODE] += max(0.0, joules)
    return tuple(ModelEnergy(name, *both) for name, both in sums.items())
