"""Step times and clocks from a device's profile (DESIGN 3, 4.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from festina import _core
from festina.control.choice import LocalRules
from festina.control.lane import Lane
from festina.control.profile import ProfileTable
from festina.control.step_time import StepWork, predict_ms
from festina.types import OperatingPoint, Phase

_PROMPTS_MAX = 8
"""Prompts of one model that a clock is chosen for; those behind them come later anyway."""


def profile_key(work: StepWork) -> tuple[Phase, float, float]:
    """Where a step lies in the profile: phase, new tokens or batch, cached tokens per sequence.

    A step with any prompt tokens costs like a prefill of all its tokens.
    """
    if work.prefill_tokens == 0:
        return Phase.DECODE, float(work.decodes), work.context_tokens / max(work.decodes, 1)
    return Phase.PREFILL, float(work.prefill_tokens + work.decodes), float(work.cached_mean)


def nearest_clock_mhz(table: ProfileTable, clock_mhz: int) -> int:
    """The clock of the profile nearest to one that a device reports."""
    return min(table.clocks_mhz, key=lambda clock: abs(clock - clock_mhz))


def profiled_sms(table: ProfileTable, sms: int) -> int:
    """The rung of the profile that stands for a partition: no larger, if there is one."""
    return max((rung for rung in table.sms if rung <= sms), default=table.sms[0])


class ProfiledStepTime:
    """Step times of one model from the table, which its measured steps correct (`StepTime`).

    Args:
        table: Profile of the device; this process is its writer.
        model: Name of the model in the table.
    """

    def __init__(self, table: ProfileTable, model: str) -> None:
        self.table = table
        self.model = model
        self._index = table.index(model)
        self._costs: dict[OperatingPoint, _core.StepCost] = {}

    def cost(self, point: OperatingPoint) -> _core.StepCost:
        """See `StepTime`; the error is the profile's own spread."""
        if point not in self._costs:
            known = self._profiled(point)
            rung = self.table.sms.index(known.sms)
            clock = self.table.clocks_mhz.index(known.clock_mhz)
            self._costs[point] = _core.StepCost.profiled(
                self.table.native, self._index, rung, clock
            )
        return self._costs[point]

    def learn(self, work: StepWork, point: OperatingPoint, latency_ms: float) -> None:
        """See `StepTime`. Of a mixed step, the prefill's share of the predicted time is learned."""
        phase, work0, work1 = profile_key(work)
        if work.prefill_tokens and work.decodes:
            alone = StepWork(work.prefill_tokens + work.decodes, 0, 0, work.cached_mean)
            cost = self.cost(point)
            latency_ms *= predict_ms(cost, alone) / predict_ms(cost, work)
        self.table.correct(self.model, phase, self._profiled(point), work0, work1, latency_ms)

    def _profiled(self, point: OperatingPoint) -> OperatingPoint:
        """The profile's point nearest to `point`: a device has other clocks and sizes too."""
        clock_mhz = nearest_clock_mhz(self.table, point.clock_mhz)
        return OperatingPoint(clock_mhz, profiled_sms(self.table, point.sms))

    def at_all_clocks(self, work: StepWork, sms: int) -> tuple[NDArray[np.float64], ...]:
        """Latency in ms with its error, and dynamic power in W, each (clocks,)."""
        phase, work0, work1 = profile_key(work)
        rung = self.table.sms.index(profiled_sms(self.table, sms))
        clocks = np.arange(len(self.table.clocks_mhz), dtype=np.int32)
        cells = self.table.estimate(self._index, phase, rung, clocks, work0, work1)
        latency_ms = cells["latency_ms"].astype(np.float64) * (1.0 + cells["spread"])
        return latency_ms, cells["power_w"].astype(np.float64)


@dataclass(frozen=True, slots=True)
class ClockRules:
    """When a clock may change.

    Attributes:
        dwell_s: Least time at a clock before it goes down again; it goes up at any time.
        saving_min: Least share of energy that going down must save.
    """

    dwell_s: float = 0.5
    saving_min: float = 0.03


class ClockGovernor:
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

    def __init__(self, table: ProfileTable, sms: int, rules: ClockRules | None = None) -> None:
        self._table = table
        self._sms = sms
        self._rules = rules or ClockRules()
        self._idle_w = np.array([table.idle_w(clock) for clock in table.clocks_mhz])
        self._changed_at = -np.inf

    def choose(self, lanes: Iterable[Lane], local: LocalRules, clock_mhz: int, now: float) -> int:
        """The clock to run at from now on.

        Args:
            lanes: Models with a `ProfiledStepTime` of this table; others are left out.
            local: Settings of local scheduling.
            clock_mhz: Clock asked for last.
            now: Seconds.
        """
        demands = [demand for lane in lanes for demand in self._demands(lane, local, now)]
        if not demands:
            return clock_mhz
        clocks = self._table.clocks_mhz
        latency_ms = np.array([demand.latency_ms for demand in demands])
        power_w = np.array([demand.power_w for demand in demands])
        energy_j = np.sum(latency_ms * (power_w + self._idle_w), axis=0) / 1e3
        in_time = _in_time(demands, latency_ms, now)
        costs = np.where(in_time, energy_j, np.inf)
        best = int(np.argmin(costs)) if np.any(in_time) else len(clocks) - 1
        present = clocks.index(nearest_clock_mhz(self._table, clock_mhz))
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
