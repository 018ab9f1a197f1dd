"""Steps at an agent: what runs next, and what became of it; see `…protocol.agent`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from festina.control.clock_governor import DeviceClock
from festina.control.clock_savings import ClockSavings
from festina.control.local import LocalScheduler, PlannedChunk, PlannedStep
from festina.device.base import Device
from festina.engine.base import Batch, Chunk, ModelShape, StepResult
from festina.errors import EngineLostError, FestinaError
from festina.runtime.protocol.agent_effects import Effect, SetClock, StartStep
from festina.runtime.protocol.agent_models import ModelTable
from festina.runtime.protocol.agent_serving import Serving
from festina.runtime.protocol.request_notes import RequestNote, note
from festina.types import ModelState, OperatingPoint, Phase

LOSSES_MAX = 3
"""A request without a new token in so many steps in which the engine was lost ends."""


class Stepper:
    """Starts steps and settles them. Loads and unloads have the compute thread to themselves.

    Args:
        scheduler: Plans steps.
        models: Which are there.
        device: Told of finished steps; clocks are set by effect only.
        clocks: Chooses the device's clock; None leaves it alone.
        serving: Gets the tokens, and the bill.

    Attributes:
        clock_target_mhz: The clock that was asked for last.
        wait_until: When a step is to start that waits for others to join it; inf where none does.
        stopped: Start nothing more.
        savings: What its clocks saved.
    """

    def __init__(
        self,
        scheduler: LocalScheduler,
        models: ModelTable,
        device: Device,
        clocks: DeviceClock | None,
        serving: Serving,
        *,
        loads_beside: bool = False,
    ) -> None:
        self._loads_beside = loads_beside
        self._scheduler = scheduler
        self._models = models
        self._device = device
        self._clocks = clocks
        self._serving = serving
        self.clock_target_mhz = device.run_clock_mhz()
        self.wait_until = float("inf")
        self.stopped = False
        self.savings = ClockSavings()
        self._locate()

    def settle(self, step_id: int, result: StepResult | FestinaError, now: float) -> list[Effect]:
        """A step has ended, well or not."""
        if isinstance(result, FestinaError):
            return self._failed(step_id, result, now)
        self._locate()
        step, grown = self._scheduler.settle(step_id, result.token_ids, result.latency_ms, now)
        self._models[step.model].in_step = False
        self._charge(step, result, now)
        # First tokens go first: for them alone a burst of other streams' tokens is a delay at all.
        grown.sort(key=lambda seq: seq.output_tokens > 1)
        pairs = zip(step.chunks, result.logprobs, strict=False)  # there are none unless one asked
        told = {chunk.sequence.number: logprobs for chunk, logprobs in pairs}
        return [
            effect for seq in grown for effect in self._serving.emit(seq, told.get(seq.number), now)
        ]

    def pump(self, now: float) -> list[Effect]:
        """Start what should run now."""
        self.wait_until = float("inf")
        if self.stopped or self._hindered():
            return []
        effects = self._set_clock(now)
        self._locate()
        plan = self._scheduler.plan(now)
        for step in plan.steps:
            self._models[step.model].in_step = True
        self.wait_until = plan.wait_until
        for step in plan.steps:
            effects += [*self._begun(step, now), StartStep(step.step_id, self._batch(step))]
        return effects

    def _begun(self, step: PlannedStep, now: float) -> Iterator[RequestNote]:
        """Notes of the requests that are in a step for the first time."""
        for chunk in step.chunks:
            number = chunk.sequence.number
            if chunk.decodes or not self._serving.requests.active(number):
                continue
            request = self._serving.requests.get(number)
            if not request.begun:
                request.begun = True
                yield note(request, "prefill", now)

    def _hindered(self) -> bool:
        """Whether the engine has to become what it should be before it can do a step."""
        if not self._loads_beside:
            return self._models.changing
        ready = ModelState.READY  # what has a lane and is not ready was lost, and is coming back
        return any(self._models[name].state is not ready for name in self._scheduler.lanes)

    def _locate(self) -> None:
        """Tell the scheduler where a step that starts now would run."""
        sms, clock_mhz = self._device.partitions[0].sms, self._device.run_clock_mhz()
        self._scheduler.point = OperatingPoint(clock_mhz, sms)
        # A clock that is about to sink is planned with already.
        self._scheduler.planning_point = OperatingPoint(min(clock_mhz, self.clock_target_mhz), sms)

    def _set_clock(self, now: float) -> list[Effect]:
        if self._clocks is None:
            return []
        clock_mhz = self._clocks.choose(
            self._scheduler.lanes.values(),
            self._scheduler.rules,
            self._device.run_clock_mhz(),
            self.clock_target_mhz,
            now,
        )
        if clock_mhz == self.clock_target_mhz:
            return []
        self.clock_target_mhz = clock_mhz
        return [SetClock(clock_mhz)]

    def _batch(self, step: PlannedStep) -> Batch:
        chunks = tuple(self._chunk(chunk) for chunk in step.chunks)
        return Batch(step.model, chunks, step.point, step.partition, step.predicted_ms)

    def _chunk(self, planned: PlannedChunk) -> Chunk:
        seq = planned.sequence
        sampling = None  # and so for what is prefilled ahead of its request
        if planned.samples:
            sampling = self._serving.requests.get(seq.number).message.sampling
        return Chunk(
            token_ids=np.array(seq.token_ids[seq.cached : seq.cached + planned.tokens], np.int32),
            start=seq.cached,
            blocks=np.array(seq.blocks, np.int32),
            sampling=sampling,
            output_index=seq.output_tokens,
        )

    def _failed(self, step_id: int, error: FestinaError, now: float) -> list[Effect]:
        step, _ = self._scheduler.settle(step_id, None, 0.0, now)
        self._models[step.model].in_step = False
        numbers = [chunk.sequence.number for chunk in step.chunks]
        if isinstance(error, EngineLostError):
            numbers = [number for number in numbers if self._to_blame(number)]
        for chunk in step.chunks:
            if chunk.sequence.ahead:  # which is no request yet: its move will see it
                self._scheduler.remove(chunk.sequence)
        return [
            effect for number in numbers for effect in self._serving.fail_one(number, error, now)
        ]

    def _to_blame(self, number: int) -> bool:
        """Whether the engine was lost under this request so often that it must be the reason."""
        if not self._serving.requests.active(number):
            return False
        request = self._serving.requests.get(number)
        request.losses += 1
        return request.losses >= LOSSES_MAX

    def _charge(self, step: PlannedStep, result: StepResult, now: float) -> None:
        """Dynamic joules of a step to its requests, by their share of its arithmetic."""
        dynamic_j = self._device.account(now, result.latency_ms, result.flops, result.bytes_moved)
        loaded = self._models[step.model].loaded
        assert loaded is not None  # noqa: S101 - a step's model is resident
        work = {chunk.sequence.number: chunk_work(loaded.shape, chunk) for chunk in step.chunks}
        ledger = self._serving.ledger
        for chunk in step.chunks:
            phase = Phase.DECODE if chunk.decodes else Phase.PREFILL
            ledger.move(chunk.sequence.number, (step.model, phase))
        ledger.step(dynamic_j, work)
        ledger.settle(self._device.energy_j(now).value)
        for chunk in step.chunks:
            if chunk.samples and not chunk.decodes:  # what it needs next is a decode
                ledger.move(chunk.sequence.number, (step.model, Phase.DECODE))
        if self._clocks is not None:
            step_time = self._scheduler.lanes[step.model].step_time
            self.savings.step(step_time, step.work, step.point)


def chunk_work(shape: ModelShape, chunk: PlannedChunk) -> float:
    """Arithmetic of a chunk, in a unit that suits sharing out: weights plus attention."""
    context = chunk.sequence.cached + chunk.tokens
    return float(chunk.tokens * (2 * shape.parameters + context * shape.kv_bytes_per_token))
