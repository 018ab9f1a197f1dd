"""The plan of a GPU's profile: the finest that fits a time, from what physics expects. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from festina.device import physics
from festina.engine.profile_plan import ClockSweep, Point, ProfilePlan, expected_s
from festina.errors import BadRequestError
from festina.types import Phase

FULL_S = 2400.0
"""A whole profile takes no longer (the paper's bar: 40 minutes per model)."""

QUICK_S = 360.0
"""Nor does a quick one."""

START_S = 60.0
"""Of that for loading the model, filling its KV cache and capturing the first graphs."""

POINT_S = 5.0
"""Window of a point: an energy counter that moves every 100 ms is then within 2 % at its edges."""

SWEEP_MHZ = (990, 1395)
"""Knee of the voltage, and where dense prefill meets a Hopper's power cap."""

_FINE = ProfilePlan(
    prefill_tokens=(16, 128, 512, 1024, 2048, 4096, 8192),
    prefill_cached=(0, 2048, 8192),
    decode_batches=(1, 4, 16, 64, 128, 256),
    decode_contexts=(64, 1024, 4096, 16384),
    repeats=3,
    warm_up=2,
    point_s=POINT_S,
    settle_s=0.3,
)
_MEDIUM = replace(
    _FINE,
    prefill_tokens=(16, 256, 1024, 4096),
    prefill_cached=(0, 4096),
    decode_batches=(1, 8, 32, 128),
    decode_contexts=(64, 1024, 8192),
)
_COARSE = replace(
    _MEDIUM,
    prefill_tokens=(16, 256, 2048),
    prefill_cached=(0, 2048),
    decode_batches=(1, 16, 64),
    decode_contexts=(64, 2048),
)
_COARSEST = replace(
    _COARSE, prefill_tokens=(64, 1024), prefill_cached=(0, 1024), decode_batches=(1, 32)
)


@dataclass(frozen=True, slots=True)
class GpuRoom:
    """What a plan has to fit into.

    Attributes:
        sms: First halves of the ladder and the whole device.
        clock_mhz: The clock that work runs at unless told otherwise.
        clocks_mhz: Clocks that can be set; empty where none can.
        kv_tokens: KV cache that fits beside the weights.
        context_tokens: Longest sequence of the model.
    """

    sms: tuple[int, ...]
    clock_mhz: int
    clocks_mhz: tuple[int, ...]
    kv_tokens: int
    context_tokens: int


def gpu_plan(
    room: GpuRoom, step_ms: Callable[[Point], float], *, quick: bool, modelled: bool = True
) -> tuple[ProfilePlan, float]:
    """The finest plan that fits, and the seconds that it is expected to take.

    Args:
        room: What it has to fit into.
        step_ms: Expected duration of a step of a point.
        quick: In `QUICK_S`, with three rungs; else in `FULL_S`, with all of them.
        modelled: Physics can model what is not measured; otherwise the plan is a full grid.

    Raises:
        BadRequestError: None fits.
    """
    limit_s = QUICK_S if quick else FULL_S
    candidates = (_COARSE, _COARSEST) if quick else (_FINE, _MEDIUM, _COARSE, _COARSEST)
    for candidate in candidates:
        plan = _fitted(candidate, room, quick=quick, modelled=modelled)
        if plan is None:
            continue
        points = plan.points(room.sms, (room.clock_mhz,))
        seconds = START_S + expected_s(plan, points, step_ms)
        if seconds <= limit_s:
            return plan, seconds
    raise BadRequestError(
        f"no plan for {room.kv_tokens} tokens of KV cache takes less than {limit_s:.0f} s",
        field="model",
        expected="a model with smaller weights, or a GPU with more memory",
    )


def expected_step_ms(gpu: physics.GpuSpec, shape: physics.WorkShape) -> Callable[[Point], float]:
    """What physics expects of a step: for planning the time that measuring takes."""

    def step_ms(point: Point) -> float:
        work = point_work(shape, point)
        sms = min(point.sms, gpu.sms_total)
        clock_mhz = min(point.clock_mhz, gpu.clock_max_mhz)
        return float(physics.run(gpu, work, sms, max(clock_mhz, 1)).latency_ms)

    return step_ms


def point_work(shape: physics.WorkShape, point: Point) -> physics.Work:
    """What a step of a point has to do."""
    phase = Phase[point.phase.upper()]
    make_work = physics.prefill_work if phase is Phase.PREFILL else physics.decode_work
    return make_work(shape, point.tokens, point.context)


def _fitted(plan: ProfilePlan, room: GpuRoom, *, quick: bool, modelled: bool) -> ProfilePlan | None:
    """The plan without what the model or the memory cannot hold; None where nothing is left."""
    longest = min(room.context_tokens, room.kv_tokens)
    cached = tuple(one for one in plan.prefill_cached if one < longest // 2)
    tokens = tuple(one for one in plan.prefill_tokens if one + max(cached) <= longest)
    contexts = tuple(one for one in plan.decode_contexts if one < longest)
    batches = plan.decode_batches
    if not modelled:
        batches, contexts = _full_grid(batches, contexts, room.kv_tokens)
    if not (tokens and cached and contexts and batches):
        return None
    fitted = replace(
        plan,
        prefill_tokens=tokens,
        prefill_cached=cached,
        decode_batches=batches,
        decode_contexts=contexts,
        kv_tokens_max=room.kv_tokens,
        clocks_mhz=(room.clock_mhz,),
        sweep=_sweep(room, tokens, batches, contexts) if modelled and not quick else None,
    )
    return replace(fitted, sms=_three(room.sms)) if quick and modelled else fitted


def _full_grid(
    batches: tuple[int, ...], contexts: tuple[int, ...], kv_tokens: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Knots of which every pair fits: the longest contexts go first, then the largest batches."""
    while batches and contexts:
        if Point("decode", 0, 0, batches[-1], contexts[-1]).kv_tokens <= kv_tokens:
            break
        if len(contexts) > 1:
            contexts = contexts[:-1]
        else:
            batches = batches[:-1]
    return batches, contexts


def _sweep(
    room: GpuRoom, tokens: tuple[int, ...], batches: tuple[int, ...], contexts: tuple[int, ...]
) -> ClockSweep | None:
    """Lower clocks on the whole device, where clocks can be set."""
    clocks_mhz = tuple(one for one in SWEEP_MHZ if one in room.clocks_mhz and one < room.clock_mhz)
    if not clocks_mhz:
        return None
    middle = contexts[len(contexts) // 2]
    ends = (batches[0], batches[len(batches) // 2])
    return ClockSweep(clocks_mhz, (tokens[len(tokens) // 2], tokens[-1]), ends, middle)


def _three(sms: tuple[int, ...]) -> tuple[int, ...]:
    """The whole device, the smallest rung and one in the middle."""
    ordered = sorted(sms)
    return tuple(sorted({ordered[0], ordered[len(ordered) // 2], ordered[-1]}))
