"""What an agent tells the scheduler about its device, 10-50 times a second."""

from __future__ import annotations

from festina.control.lane import Lane
from festina.control.local import LocalScheduler
from festina.control.sequence import Sequence
from festina.control.step_time import StepWork, predict_ms
from festina.device.base import Device
from festina.engine.base import BLOCK_TOKENS
from festina.runtime.protocol.agent_models import ModelTable, Residency
from festina.runtime.protocol.agent_power import PowerState
from festina.types import GpuSummary, ModelState, ModelSummary

_CHUNK = 128


def gpu_summary(
    seq: int,
    device: Device,
    scheduler: LocalScheduler,
    models: ModelTable,
    power: PowerState,
    tickets: tuple[int, ...],
    clock_target_mhz: int,
    now: float,
) -> GpuSummary:
    """The device at this moment."""
    watts, energy = device.power_w(now), device.energy_j(now)
    pools = [lane.pool for lane in scheduler.lanes.values()]
    busy_sms = sum(step.partition.sms for step in scheduler.steps)
    return GpuSummary(
        seq=seq,
        clock_mhz=device.clock_mhz(),
        clock_target_mhz=clock_target_mhz,
        sms_total=device.sms_total,
        sms_free=max(0, device.sms_total - busy_sms),
        free_in_ms=free_in_ms(scheduler, now) + power.wake_left_ms(now),
        kv_tokens_total=sum(pool.total for pool in pools) * BLOCK_TOKENS,
        kv_tokens_free=sum(pool.free for pool in pools) * BLOCK_TOKENS,
        memory_free_bytes=max(0, device.memory_bytes - models.held_bytes),
        power_w=watts.value,
        power_source=watts.source,
        energy_j=energy.value,
        parked=power.parked,
        models=tuple(
            _model_summary(residency, scheduler.lanes.get(residency.deployment.name))
            for residency in models
            if residency.state is not ModelState.ABSENT
        ),
        tickets=tickets,
        health=device.health(),
        draining=power.draining(now),
        settled_s=power.settled_s(now),
    )


def free_in_ms(scheduler: LocalScheduler, now: float) -> float:
    """Time until a new prefill could start: the step under way, then the prompts that wait."""
    step_ms = sum(
        max(0.0, step.predicted_ms - (now - step.started_at) * 1e3) for step in scheduler.steps
    )
    queue_ms = 0.0
    for lane in scheduler.lanes.values():
        tokens = sum(seq.pending_tokens for seq in lane.prefills())
        if tokens:
            chunk_ms = predict_ms(lane.step_time.cost(scheduler.point), StepWork(_CHUNK, 0, 0))
            queue_ms += chunk_ms * tokens / _CHUNK
    return step_ms + queue_ms


def _model_summary(residency: Residency, lane: Lane | None) -> ModelSummary:
    name, state = residency.deployment.name, residency.state
    totals = (
        residency.requests_total,
        residency.input_tokens_total,
        residency.output_tokens_total,
    )
    if lane is None:
        return ModelSummary(name, state, 0, residency.requests, 0, 0, float("inf"), *totals)
    prefills, running = _split(lane)
    return ModelSummary(
        model=name,
        state=state,
        running=len(running),
        waiting=len(prefills),
        context_tokens=sum(seq.cached for seq in lane.running.values()),
        waiting_tokens=sum(seq.pending_tokens for seq in prefills),
        tbt_ms=min((seq.slo.tbt_ms for seq in running), default=float("inf")),
        requests_total=residency.requests_total,
        input_tokens_total=residency.input_tokens_total,
        output_tokens_total=residency.output_tokens_total,
    )


def _split(lane: Lane) -> tuple[list[Sequence], list[Sequence]]:
    """Sequences still in prefill, and those that decode, in a step or not."""
    prefills = list(lane.waiting.values())
    running: list[Sequence] = []
    for seq in lane.running.values():
        (running if seq.output_tokens else prefills).append(seq)
    return prefills, running
