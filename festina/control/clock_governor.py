"""Which clock a device that serves should have: our rule (`csrc/core/clock`, DESIGN 4.2)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Protocol

from festina import _core
from festina.control.choice import LocalRules
from festina.control.clock import SWITCH_MS, ClockRules, nearest_clock
from festina.control.lane import Lane
from festina.control.profile import ProfileTable
from festina.control.profiled import ProfiledStepTime, profiled_sms
from festina.control.sequence import Sequence

_AHEAD = 16
"""Prompts of one model that a clock is chosen for; those behind them come later anyway."""


class DeviceClock(Protocol):
    """Chooses the clock of one device, again and again. Used by one thread."""

    def choose(
        self,
        lanes: Collection[Lane],
        local: LocalRules,
        clock_mhz: int,
        target_mhz: int,
        now: float,
    ) -> int:
        """The clock to ask for, one of the profile.

        Args:
            lanes: The resident models.
            local: Settings of local scheduling.
            clock_mhz: Clock of a step that starts now.
            target_mhz: Clock asked for last.
            now: Seconds, never decreasing.
        """


class ClockGovernor:
    """The clock of least power at which all that runs, waits or has come of late is in time.

    Up at once when an objective is at risk, in the midst of a step too; down only after a dwell,
    and when the next decodes stay in time. The pace of requests does not count: the clock may use
    up to the whole TBT objective. While a model is resident that the profile does not know the
    clock is the highest, since nothing says what steps of it would take at another.

    Args:
        table: Profile of the device.
        sms: SMs that steps run on.
        switch_ms: From asking for a clock until it holds.
        rules: What it goes by.

    Raises:
        BadRequestError: A rule is out of range.
    """

    def __init__(
        self,
        table: ProfileTable,
        sms: int,
        switch_ms: float = SWITCH_MS,
        rules: ClockRules | None = None,
    ) -> None:
        self._table = table
        rung = table.sms.index(profiled_sms(table, sms))
        settings = (rules or ClockRules()).native()
        self._native = _core.ClockGovernor(table.native, rung, switch_ms, settings)
        self._load = _core.ClockLoad()
        self._newest: dict[str, int] = {}

    def choose(
        self,
        lanes: Collection[Lane],
        local: LocalRules,
        clock_mhz: int,
        target_mhz: int,
        now: float,
    ) -> int:
        """See `DeviceClock`."""
        known = [lane for lane in lanes if isinstance(lane.step_time, ProfiledStepTime)]
        if len(known) < len(lanes):
            return self._table.clocks_mhz[-1]
        for lane in known:
            self._note_arrivals(lane, now * 1e3)
        if not self._native.due(now * 1e3):
            return target_mhz
        self._load.clear()
        for lane in known:
            self._add(lane, local.batch_max)
        clock = nearest_clock(self._table, clock_mhz)
        target = nearest_clock(self._table, target_mhz)
        return self._table.clocks_mhz[self._native.decide(self._load, clock, target, now * 1e3)]

    def _note_arrivals(self, lane: Lane, now_ms: float) -> None:
        """Prompts that came since the last call: they are behind all others, in order."""
        newest = self._newest.get(lane.model, -1)
        fresh: list[Sequence] = []
        for seq in reversed(lane.waiting.values()):
            if seq.number <= newest:
                break
            if not seq.output_tokens:
                fresh.append(seq)
        for seq in reversed(fresh):
            model = self._index(lane)
            self._native.arrived(model, seq.pending_tokens, seq.cached, seq.slo.ttft_ms, now_ms)
            self._newest[lane.model] = seq.number

    def _add(self, lane: Lane, batch_max: int) -> None:
        decodes = [seq for seq in lane.running.values() if seq.decoding]
        count = len(decodes)
        self._load.add_model(
            self._index(lane),
            min(count, batch_max),
            sum(seq.cached for seq in decodes) / max(count, 1),
            min((seq.slo.tbt_ms for seq in decodes), default=float("inf")),
            min((seq.due_at(0.0) * 1e3 for seq in decodes), default=float("inf")),
            lane.busy,
        )
        for seq in islice(_prompts(lane), _AHEAD):
            first = seq.output_tokens == 0
            since = seq.submitted_at if first else seq.last_token_at
            objective_ms = seq.slo.ttft_ms if first else seq.slo.tbt_ms
            self._load.add_waiting(
                seq.number, seq.pending_tokens, seq.cached, since * 1e3, objective_ms
            )

    def _index(self, lane: Lane) -> int:
        assert isinstance(lane.step_time, ProfiledStepTime)  # noqa: S101 - for the type checker
        return self._table.index(lane.step_time.model)


def _prompts(lane: Lane) -> Iterator[Sequence]:
    """Sequences with prompt tokens to go, in a step or not."""
    for seq in lane.running.values():
        if not seq.decoding:
            yield seq
    yield from lane.waiting.values()
