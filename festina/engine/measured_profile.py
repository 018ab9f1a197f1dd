"""A profile from measurements: loads a model, measures it, unloads it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from festina.config import DeploymentConfig
from festina.device.base import Device
from festina.engine.base import BLOCK_TOKENS, Engine, LoadedModel, ModelShape
from festina.engine.measurements import Measurement, MeasurementStore
from festina.engine.profile_plan import Point, ProfilePlan
from festina.engine.profiler import Profiler
from festina.profile_format import ModelInfo
from festina.types import Provenance


@dataclass(frozen=True, slots=True)
class Origin:
    """How a profile was made, for its head.

    Attributes:
        made_by: The command.
        date: Day, ISO 8601.
        machine: Processor, or GPU and driver.
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


@dataclass(frozen=True, slots=True)
class Subject:
    """What to measure, and what else its profile says.

    Attributes:
        model: Name of the profile.
        weights: Weights, as a deployment names them.
        plan: What to measure.
        origin: How the profile is made.
        parked_w: Power without a context; None takes the least idle power.
        wake_ms: From parked to ready.
        context_tokens: Longest sequence of the model; None takes that of the plan.
    """

    model: str
    weights: str
    plan: ProfilePlan
    origin: Origin
    parked_w: float | None = None
    wake_ms: float = 0.0
    context_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it.

    Attributes:
        info: Head of the profile.
        shape: Sizes of the model.
        measurements: Every point of the plan, those of earlier runs included.
    """

    info: ModelInfo
    shape: ModelShape
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where measurements go besides the profile.

    Attributes:
        store: Keeps them as they come; None keeps nothing.
        watch: Passes them on, told how many there will be and how many there are: a progress bar.
    """

    store: MeasurementStore | None = None
    watch: Callable[[Iterable[Measurement], int, int], Iterable[Measurement]] = field(
        default=lambda measurements, _total, _kept: measurements
    )


def measure(
    engine: Engine,
    device: Device,
    subject: Subject,
    keeping: Keeping | None = None,
    times: TimeSource | None = None,
) -> Measured:
    """Measure a model; the engine and device must be idle.

    Raises:
        WeightsError: The weights cannot be read.
        UnsupportedModelError: The engine cannot run them.
        BadRequestError: The plan does not fit the model's context.
        DeviceError: The plan does not fit the device.
        EngineError: A step failed.
    """
    times, keeping, plan = times or TimeSource(), keeping or Keeping(), subject.plan
    deployment = DeploymentConfig(
        name=subject.model,
        weights=subject.weights,
        context_tokens=plan.sequence_blocks * BLOCK_TOKENS,
        kv_tokens=plan.kv_tokens,
    )
    start = times.clock()
    loaded = engine.load(deployment)
    load_ms = 1e3 * (times.clock() - start)
    try:
        profiler = Profiler(engine, loaded, device, plan, clock=times.clock, sleep=times.sleep)
        found = _collect(profiler, keeping)
    finally:
        engine.unload(subject.model)
    ordered = tuple(found[point] for point in profiler.points)
    return Measured(_head(device, subject, loaded, load_ms, ordered), loaded.shape, ordered)


def _collect(profiler: Profiler, keeping: Keeping) -> dict[Point, Measurement]:
    """What is kept, and the rest as it is measured."""
    store = keeping.store
    found = dict(store.kept) if store else {}
    fresh = profiler.measurements(dict(found))
    for measurement in keeping.watch(fresh, len(profiler.points), len(found)):
        if store is not None:
            store.add(measurement)
        found[measurement.point] = measurement
    return found


def _head(
    device: Device,
    subject: Subject,
    loaded: LoadedModel,
    load_ms: float,
    measurements: tuple[Measurement, ...],
) -> ModelInfo:
    idle = min((one for one in measurements if one.phase == "idle"), key=lambda one: one.power_w)
    parked_w = idle.power_w if subject.parked_w is None else subject.parked_w
    sources = {one.power_source for one in measurements}
    return ModelInfo(
        device=device.kind,
        model=subject.model,
        sms_total=device.sms_total,
        memory_bytes=device.memory_bytes,
        weight_bytes=loaded.shape.weight_bytes,
        kv_bytes_per_token=loaded.shape.kv_bytes_per_token,
        context_tokens=subject.context_tokens or loaded.shape.context_tokens,
        load_ms=load_ms,
        wake_ms=subject.wake_ms,
        parked_w=parked_w,
        power_source=sources.pop() if len(sources) == 1 else Provenance.MODELLED,
        made_by=subject.origin.made_by,
        power_cap_w=device.power_cap_w,
        date=subject.origin.date,
        machine=subject.origin.machine,
    )
