"""The clock of a device by frequency sweep: the rule of agents whose policy is `paper`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from festina.control.choice import LocalRules
from festina.control.lane import Lane
from festina.control.profile import ProfileTable
from festina.control.profiled import ProfiledStepTime, nearest_clock_mhz
from festina.control.step_time import StepWork

_PROMPTS_MAX = 8
"""Prompts of one model that a clock is chosen for; those behind them come later anyway."""


@dataclass(frozen=True, slots=True)
class SweepRules:
    """When a clock may change.

    Attributes:
        dwell_s: Least time at a clock before it goes down again; it goes up at any time.
        saving_min: Least share of energy that going down must save.
    """

    dwell_s: float = 0.5
    saving_min: float = 0.03


class ClockSweep:
    """Chooses the clock of a device that runs one step at a time.

    At each clock: can all that waits be run one after the other in time, and what would it cost,
    idle power included? The cheapest clock that can is taken, the highest if none can (paper
    section 3.4, frequency sweep, for a device shared in time). Up at once, down only after a dwell
    and for a saving that is worth a switch (DESIGN 4.2, hysteresis).

    Args:
        table: Profile of the device.
        sms: SMs that steps run on.
        rules: When it may change.
    """

    def __init__(self, table: ProfileTable, sms: int, rules: SweepRules | None = None) -> None:
        self._table = table
        self._sms = sms
        self._rules = rules or SweepRules()
        self._idle_w = np.array([table.idle_w(clock) for clock in table.clocks_mhz])
        self._changed_at = -np.inf

    def choose(
        self,
        lanes: Collection[Lane],
        local: LocalRules,
        clock_mhz: int,  # noqa: ARG002 - the sweep plans as if switches took no time
        target_mhz: int,
        now: float,
    ) -> int:
        """See `DeviceClock`. It changes between steps only: the clock is the whole device's."""
        if any(lane.busy for lane in lanes):
            return target_mhz
        demands = [demand for lane in lanes for demand in self._demands(lane, local, now)]
        if not demands:
            return target_mhz
        clocks = self._table.clocks_mhz
        latency_ms = np.array([demand.latency_ms for demand in demands])
        power_w = np.array([demand.power_w for demand in demands])
        energy_j = np.sum(latency_ms * (power_w + self._idle_w), axis=0) / 1e3
        in_time = _in_time(demands, latency_ms, now)
        costs = np.where(in_time, energy_j, np.inf)
        best = int(np.argmin(costs)) if np.any(in_time) else len(clocks) - 1
        present = clocks.index(nearest_clock_mhz(self._table, target_mhz))
        if best < present and not self._worth_it(costs, best, present, now):
            best = present
        if best != present:
            self._changed_at = now
        return clocks[best]

    def _worth_it(self, costs: NDArray[np.float64], best: int, present: int, now: float) -> bool:
        if now - self._changed_at < self._rules.dwell_s:
            return False
        return bool(costs[best] <= costs[present] * (1.0 - self._rules.saving_min))

    def _demands(self, lane: Lane, local: LocalRules, now: float) -> Iterable[_Demand]:
        step_time = lane.step_time
        if not isinstance(step_time, ProfiledStepTime):
            return
        decodes = [seq for seq in lane.running.values() if seq.decoding]
        if decodes:
            batch = min(len(decodes), local.batch_max)
            context = sum(seq.cached for seq in decodes) * batch // len(decodes)
            figures = step_time.at_all_clocks(StepWork(0, batch, context), self._sms)
            # A whole TBT from now on: where in its period a decode stands is no matter of clocks.
            tbt_s = min(seq.slo.tbt_ms for seq in decodes) * (1.0 - local.margin) / 1e3
            yield _Demand(now + tbt_s, *figures)
        for seq in islice(lane.prefills(), _PROMPTS_MAX):
            tokens = seq.pending_tokens
            figures = step_time.at_all_clocks(StepWork(tokens, 0, 0, seq.cached), self._sms)
            yield _Demand(seq.due_at(local.margin), *figures)


@dataclass(frozen=True, slots=True)
class _Demand:
    """Something that must run: by when, and at each clock how long and at what dynamic power."""

    due_at: float
    latency_ms: NDArray[np.float64]
    power_w: NDArray[np.float64]


def _in_time(
    demands: list[_Demand], latency_ms: NDArray[np.float64], now: float
) -> NDArray[np.bool_]:
    """(clocks,) whether all are in time, run one after the other, the earliest deadline first."""
    due_ms = np.array([demand.due_at - now for demand in demands]) * 1e3
    order = np.argsort(due_ms, kind="stable")
    ends_ms = np.cumsum(latency_ms[order], axis=0)
    return np.asarray((ends_ms <= due_ms[order, np.newaxis]).all(axis=0))
