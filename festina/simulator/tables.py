"""The profile that policies know, and the truth that the simulated GPUs follow.

Both come from the analytic GPU. Policies know the modelled profile as a file would give it to them
(`belief_table`). GPUs run by the same physics on closer knots (`truth_table`), times a factor per
deployment and phase that no policy knows (`draw_bias`), times a factor per step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from festina.control.profile import ProfileTable
from festina.control.profile_csv import CELL, SOURCES, Cells, Grid, ModelProfile
from festina.device import physics
from festina.device.modelled_profile import LATENCY_ERROR, ProfileAxes, modelled_head
from festina.errors import BadRequestError
from festina.types import Phase, Provenance

TRUTH_AXES = ProfileAxes(
    prefill_tokens=(
        *(16, 24, 32, 48, 64, 96, 128, 192, 288, 432, 768),
        *(2048, 4096, 8192, 16384, 32768),
    ),
    prefill_cached=(0, 1024, 4096, 8192, 16384, 32768),
    decode_batches=(1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256),
    decode_contexts=(64, 512, 1024, 2048, 4096, 8192, 16384, 32768),
)
"""Knots of the truth, at most 16 an axis (layout.hpp).

Between them latency and the energy of a step stay within 5 % of physics, 1 % on average. What is
simulated is the table, so this is no error of a comparison between policies.
"""


@dataclass(frozen=True, slots=True)
class TruthSettings:
    """How far the simulated GPUs stray from the profile. Relative standard deviations.

    Attributes:
        time_sigma: Of the fixed factor on latency, per (deployment, phase); lognormal.
        power_sigma: Of the fixed factor on dynamic power, likewise.
        step_sigma: Of the factor on each step's latency, exp(σz - σ²/2): its mean is 1, so that it
            does not shift sums over many steps.
    """

    time_sigma: float = 0.05
    power_sigma: float = 0.08
    step_sigma: float = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Bias:
    """Truth over profile. Medians are 1: a profile is as often too high as too low.

    Attributes:
        time: float64[n, 2]; factor on latency of deployment and `Phase`.
        power: float64[n, 2]; factor on dynamic power.
    """

    time: NDArray[np.float64]
    power: NDArray[np.float64]

    @classmethod
    def none(cls, deployments: int) -> Bias:
        """Truth as in the profile."""
        return cls(np.ones((deployments, len(Phase))), np.ones((deployments, len(Phase))))


def draw_bias(
    n_deployments: int, rng: np.random.Generator, settings: TruthSettings | None = None
) -> Bias:
    """One draw of how the truth differs from the profile: lognormal factors of median 1."""
    settings = settings or TruthSettings()
    shape = (n_deployments, len(Phase))
    return Bias(
        time=np.exp(rng.normal(0.0, settings.time_sigma, shape)),
        power=np.exp(rng.normal(0.0, settings.power_sigma, shape)),
    )


def belief_table(gpu: physics.GpuSpec, shapes: Sequence[str]) -> ProfileTable:
    """The modelled profile of these shapes, figure for figure as `festina profile` writes it.

    Raises:
        UnsupportedModelError: Physics knows no such shape.
        BadRequestError: A shape is named twice.
    """
    return _table(gpu, shapes, lambda model: ProfileAxes().within(model.context_tokens))


def truth_table(gpu: physics.GpuSpec, shapes: Sequence[str]) -> ProfileTable:
    """The physics of these shapes on the knots of `TRUTH_AXES`, before any bias.

    Raises:
        UnsupportedModelError: Physics knows no such shape.
        BadRequestError: A shape is named twice.
    """
    return _table(gpu, shapes, lambda _: TRUTH_AXES)


def _table(
    gpu: physics.GpuSpec, shapes: Sequence[str], axes_of: Callable[[physics.Decoder], ProfileAxes]
) -> ProfileTable:
    if len(set(shapes)) != len(shapes):
        raise BadRequestError("names a shape twice", field="shapes", expected="each shape once")
    models = [physics.model_named(shape) for shape in shapes]
    return ProfileTable.from_profiles([_profile(gpu, model, axes_of(model)) for model in models])


def _profile(gpu: physics.GpuSpec, model: physics.Decoder, axes: ProfileAxes) -> ModelProfile:
    return ModelProfile(
        info=modelled_head(gpu, model),
        sms=gpu.sms_ladder,
        clocks_mhz=gpu.clocks_mhz,
        idle_w=tuple(physics.idle_w(gpu, gpu.clocks_mhz).tolist()),
        prefill=_grid(gpu, model, Phase.PREFILL, axes.prefill_tokens, axes.prefill_cached),
        decode=_grid(gpu, model, Phase.DECODE, axes.decode_batches, axes.decode_contexts),
        idle_source=Provenance.MODELLED.value,
    )


def _grid(
    gpu: physics.GpuSpec,
    model: physics.Decoder,
    phase: Phase,
    tokens: tuple[int, ...],
    context: tuple[int, ...],
) -> Grid:
    work0 = np.array(tokens).reshape(-1, 1, 1, 1)
    work1 = np.array(context).reshape(-1, 1, 1)
    sms, clocks = np.array(gpu.sms_ladder).reshape(-1, 1), np.array(gpu.clocks_mhz)
    make_work = physics.prefill_work if phase is Phase.PREFILL else physics.decode_work
    work = make_work(model, work0, work1)
    # One search for the cap per (work, SMs) serves all clocks.
    limit_mhz = physics.capped_clock_mhz(gpu, work, sms, gpu.clock_max_mhz)
    point = physics.run(gpu, work, sms, clocks, limit_mhz)
    return Grid(tokens, context, _cells(phase, work, point))


def _cells(phase: Phase, work: physics.Work, point: physics.RunPoint) -> Cells:
    cells: Cells = np.zeros(point.latency_ms.shape, CELL)
    seconds = point.latency_ms / 1e3
    cells["latency_ms"] = point.latency_ms
    cells["power_w"] = point.dynamic_w
    cells["flops_per_s"] = work.flops / seconds
    cells["bytes_per_s"] = work.bytes_moved / seconds
    cells["spread"] = LATENCY_ERROR[phase]
    cells["source"] = SOURCES.index(Provenance.MODELLED.value)
    cells["latency_factor"] = 1
    cells["power_factor"] = 1
    return cells
