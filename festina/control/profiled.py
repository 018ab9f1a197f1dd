"""Step times from a device's profile (DESIGN 3, 4.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from festina import _core
from festina.control.profile import ProfileTable
from festina.control.step_time import StepWork, predict_ms
from festina.types import OperatingPoint, Phase


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
