"""Profiles from the analytic GPU, for planning and simulating where nothing was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from festina.device import physics
from festina.profile_format import ModelInfo, ProfileRow
from festina.types import Phase, Provenance

LATENCY_ERROR = {Phase.PREFILL: 0.03, Phase.DECODE: 0.05}
"""Relative error of modelled latencies where clocks are extrapolated; the rows' `spread`."""


@dataclass(frozen=True, slots=True)
class ProfileAxes:
    """Knots of the work axes. Tables interpolate linearly between them.

    Latency is affine in tokens, batch and context but for the step from memory-bound to
    compute-bound, so knots are closest where that step lies.
    """

    prefill_tokens: tuple[int, ...] = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    prefill_cached: tuple[int, ...] = (0, 2048, 8192, 32768)
    decode_batches: tuple[int, ...] = (1, 4, 16, 64, 128, 256)
    decode_contexts: tuple[int, ...] = (64, 1024, 4096, 16384, 65536)

    def within(self, context_tokens: int) -> ProfileAxes:
        """Without the knots that a model with this context cannot reach."""
        return ProfileAxes(
            prefill_tokens=_up_to(context_tokens, self.prefill_tokens),
            prefill_cached=_up_to(context_tokens, self.prefill_cached),
            decode_batches=self.decode_batches,
            decode_contexts=_up_to(context_tokens, self.decode_contexts),
        )


def modelled_head(gpu: physics.GpuSpec, model: physics.Decoder) -> ModelInfo:
    """What holds for the whole profile."""
    return ModelInfo(
        device=gpu.kind,
        model=model.name,
        sms_total=gpu.sms_total,
        memory_bytes=gpu.memory_bytes,
        weight_bytes=model.resident_bytes,
        kv_bytes_per_token=model.kv_bytes_per_token,
        context_tokens=model.context_tokens,
        load_ms=physics.load_ms(gpu, model.resident_bytes),
        wake_ms=gpu.wake_ms,
        parked_w=physics.parked_w(gpu),
        power_source=Provenance.MODELLED,
        made_by=f"festina profile --device sim:{gpu.aliases[0]} --model {model.name}",
        power_cap_w=gpu.power.cap_w,
    )


def modelled_rows(
    gpu: physics.GpuSpec, model: physics.Decoder, axes: ProfileAxes | None = None
) -> Iterator[ProfileRow]:
    """Prefill, decode and idle rows over the device's SM ladder and clocks."""
    axes = (axes or ProfileAxes()).within(model.context_tokens)
    prefill_works = (axes.prefill_tokens, axes.prefill_cached)
    decode_works = (axes.decode_batches, axes.decode_contexts)
    yield from _grid(gpu, model, Phase.PREFILL, *prefill_works)
    yield from _grid(gpu, model, Phase.DECODE, *decode_works)
    for clock_mhz in gpu.clocks_mhz:
        yield _idle(clock_mhz, float(physics.idle_w(gpu, clock_mhz)))


def _up_to(limit: int, knots: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(knot for knot in knots if knot <= limit)


def _grid(
    gpu: physics.GpuSpec,
    model: physics.Decoder,
    phase: Phase,
    tokens: Sequence[int],
    context: Sequence[int],
) -> Iterator[ProfileRow]:
    mesh = np.meshgrid(tokens, context, gpu.sms_ladder, gpu.clocks_mhz, indexing="ij")
    work0, work1, sms, clocks = (axis.ravel() for axis in mesh)
    make_work = physics.prefill_work if phase is Phase.PREFILL else physics.decode_work
    work = make_work(model, work0, work1)
    point = physics.run(gpu, work, sms, clocks)
    for i in range(len(work0)):
        seconds = float(point.latency_ms[i]) / 1e3
        yield ProfileRow(
            phase=phase.name.lower(),
            sms=int(sms[i]),
            clock_mhz=int(clocks[i]),
            tokens=int(work0[i]),
            context=int(work1[i]),
            latency_ms=float(point.latency_ms[i]),
            power_w=float(point.dynamic_w[i]),
            flops_per_s=float(work.flops[i]) / seconds,
            bytes_per_s=float(work.bytes_moved[i]) / seconds,
            spread=LATENCY_ERROR[phase],
            samples=0,
            source=Provenance.MODELLED.value,
        )


def _idle(clock_mhz: int, power_w: float) -> ProfileRow:
    source = Provenance.MODELLED.value
    return ProfileRow("idle", 0, clock_mhz, 0, 0, 0.0, power_w, 0.0, 0.0, 0.0, 0, source)
