"""A profile from measurements: loads a model, measures it, unloads it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from festina.config import DeploymentConfig
from festina.device.base import Device
from festina.engine.base import BLOCK_TOKENS, Engine
from festina.engine.profiler import ProfilePlan, Profiler
from festina.profile_format import ModelInfo, ProfileRow
from festina.types import Provenance


@dataclass(frozen=True, slots=True)
class Origin:
    """How a profile was made, for its head.

    Attributes:
        made_by: The command.
        date: Day, ISO 8601.
        machine: Processor.
    """

    made_by: str
    date: str
    machine: str


@dataclass(frozen=True, slots=True)
class TimeSource:
    """Time as the engine's device knows it.

    Attributes:
        clock: Monotonic seconds.
        sleep: Waits for so many seconds.
    """

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


Watch = Callable[[Iterable[ProfileRow], int], Iterable[ProfileRow]]
"""Passes rows on as they come, told how many there will be: a progress bar."""


def measure(
    engine: Engine,
    device: Device,
    model: str,
    weights: str,
    plan: ProfilePlan,
    origin: Origin,
    *,
    time_source: TimeSource | None = None,
    watch: Watch = lambda rows, _: rows,
) -> tuple[ModelInfo, list[ProfileRow]]:
    """Measure `weights` under the name `model`; the engine and device must be idle.

    Raises:
        WeightsError: The weights cannot be read.
        UnsupportedModelError: The engine cannot run them.
        BadRequestError: The plan does not fit the model's context.
        DeviceError: The plan does not fit the device.
        EngineError: A step failed.
    """
    times = time_source or TimeSource()
    deployment = DeploymentConfig(
        name=model,
        weights=weights,
        context_tokens=plan.sequence_blocks * BLOCK_TOKENS,
        kv_tokens=plan.kv_tokens,
    )
    start = times.clock()
    loaded = engine.load(deployment)
    load_ms = 1e3 * (times.clock() - start)
    try:
        profiler = Profiler(engine, loaded, device, plan, clock=times.clock, sleep=times.sleep)
        rows = list(watch(profiler.rows(), profiler.points))
    finally:
        engine.unload(model)
    idle = min((row for row in rows if row.phase == "idle"), key=lambda row: row.power_w)
    head = ModelInfo(
        device=device.kind,
        model=model,
        sms_total=device.sms_total,
        memory_bytes=device.memory_bytes,
        weight_bytes=loaded.shape.weight_bytes,
        kv_bytes_per_token=loaded.shape.kv_bytes_per_token,
        context_tokens=loaded.shape.context_tokens,
        load_ms=load_ms,
        wake_ms=0.0,
        parked_w=idle.power_w,
        power_source=Provenance(idle.source),
        made_by=origin.made_by,
        date=origin.date,
        machine=origin.machine,
    )
    return head, rows
