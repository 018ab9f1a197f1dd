"""Power of the analytic GPU and what its cap does to the clock (DESIGN 4.4, 4.5). Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from festina.device.physics.gpus import GpuSpec, PowerFit
from festina.device.physics.latency import latency_ms
from festina.device.physics.work import Array, Work

_SECTIONS = np.linspace(0.0, 1.0, 33)
_SEARCHES = 4  # each keeps 1/32 of the range: 2 GHz / 32^4 is far below one clock step


@dataclass(frozen=True, slots=True)
class RunPoint:
    """How a step runs at an asked-for clock, alone on its partition.

    Attributes:
        latency_ms: Duration.
        dynamic_w: Power above `idle_w` of the asked-for clock; their sum never exceeds the cap.
        clock_mhz: Clock it really runs at: lower than asked for where the cap binds.
    """

    latency_ms: Array
    dynamic_w: Array
    clock_mhz: Array


def idle_w(gpu: GpuSpec, clock_mhz: ArrayLike) -> Array:
    """Power of a device that holds a context and runs nothing."""
    ghz = np.asarray(clock_mhz, np.float64) / 1e3
    return np.asarray(gpu.power.idle_base_w + gpu.power.idle_slope_w * ghz)


def parked_w(gpu: GpuSpec) -> float:
    """Power of a device without a context."""
    return float(idle_w(gpu, gpu.clock_max_mhz)) - gpu.power.context_w


def dynamic_w(
    gpu: GpuSpec, flops_per_s: ArrayLike, bytes_per_s: ArrayLike, clock_mhz: ArrayLike
) -> Array:
    """Power above idle at these rates; no cap.

    The voltage slope is the low one while the total stays below `slope_low_w` and the high one
    above `slope_high_w`.
    """
    fit = gpu.power
    rates = np.asarray(flops_per_s, np.float64), np.asarray(bytes_per_s, np.float64)
    above_knee = np.maximum(0.0, np.asarray(clock_mhz, np.float64) / 1e3 - fit.knee_ghz)
    high = _dynamic_w(fit, *rates, 1.0 + above_knee * fit.slope_high)
    low = _dynamic_w(fit, *rates, 1.0 + above_knee * fit.slope_low)
    total = idle_w(gpu, clock_mhz) + high
    blend = np.clip((total - fit.slope_low_w) / (fit.slope_high_w - fit.slope_low_w), 0.0, 1.0)
    return np.asarray(low + blend * (high - low))


def capped_clock_mhz(gpu: GpuSpec, work: Work, sms: ArrayLike, clock_mhz: ArrayLike) -> Array:
    """The highest clock ≤ `clock_mhz` at which the step stays within the power cap.

    Power rises with the clock, so sectioning the range finds it: 32 parts at a time, because one
    numpy call costs the same for 1 clock as for 32. The lowest clock is kept even where it would
    not be enough.
    """
    asked = np.asarray(clock_mhz, np.float64)
    over = _total_w(gpu, work, sms, asked) > gpu.power.cap_w
    if not np.any(over):
        return np.broadcast_to(asked, over.shape).copy()
    wide_work, wide_sms = work.with_axis(), np.asarray(sms, np.float64)[..., None]
    high = np.broadcast_to(asked, over.shape)[..., None]
    low = np.minimum(float(gpu.clocks_mhz[0]), high)
    for _ in range(_SEARCHES):
        clocks = low + (high - low) * _SECTIONS
        fits = _total_w(gpu, wide_work, wide_sms, clocks) <= gpu.power.cap_w
        last = np.maximum(np.sum(fits, axis=-1, keepdims=True) - 1, 0)
        low = np.take_along_axis(clocks, last, axis=-1)
        high = np.take_along_axis(clocks, np.minimum(last + 1, len(_SECTIONS) - 1), axis=-1)
    return np.where(over, low[..., 0], asked)


def run(
    gpu: GpuSpec,
    work: Work,
    sms: ArrayLike,
    clock_mhz: ArrayLike,
    limit_mhz: ArrayLike | None = None,
) -> RunPoint:
    """Latency and power of a step alone on the device, under the cap.

    Args:
        gpu: Where it runs.
        work: What it does.
        sms: SMs of its partition.
        clock_mhz: Clock asked for.
        limit_mhz: `capped_clock_mhz` of the same work and SMs at the top clock, for callers that
            try many clocks: power rises with the clock, so it is the limit of every lower one too.
    """
    asked = np.asarray(clock_mhz, np.float64)
    if limit_mhz is None:
        clock = capped_clock_mhz(gpu, work, sms, asked)
    else:
        clock = np.minimum(asked, limit_mhz)
    latency = latency_ms(gpu, work, sms, clock)
    seconds = latency / 1e3
    dynamic = dynamic_w(gpu, work.flops / seconds, work.bytes_moved / seconds, clock)
    total = np.minimum(idle_w(gpu, clock) + dynamic, gpu.power.cap_w)
    above_idle = np.where(clock < asked, total - idle_w(gpu, asked), dynamic)
    return RunPoint(latency_ms=latency, dynamic_w=above_idle, clock_mhz=clock)


def _total_w(gpu: GpuSpec, work: Work, sms: ArrayLike, clock_mhz: Array) -> Array:
    seconds = latency_ms(gpu, work, sms, clock_mhz) / 1e3
    dynamic = dynamic_w(gpu, work.flops / seconds, work.bytes_moved / seconds, clock_mhz)
    return np.asarray(idle_w(gpu, clock_mhz) + dynamic)


def _dynamic_w(fit: PowerFit, flops_per_s: Array, bytes_per_s: Array, voltage: Array) -> Array:
    square = voltage**2
    return np.asarray(
        fit.flop_j * square * flops_per_s + (fit.memory_j + fit.chip_j * square) * bytes_per_s
    )
