"""Constants of the analytic GPU that are uncertain and could decide a result.

Each is one number with a plausible range. `with_setting` gives a GPU that differs in it and keeps
what was measured: the figures that the constant was derived from do not move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from festina.device import physics
from festina.device.physics.gpus import PowerFit
from festina.device.physics.work import Work
from festina.errors import BadRequestError


class Range(NamedTuple):
    """A plausible range, and the value that `physics` has for the H100."""

    low: float
    default: float
    high: float


IDLE_W = "idle_w"
MEMORY_SHARE = "memory_share"
DECODE_CLOCK_C = "decode_clock_c"
CLOCK_SWITCH_MS = "clock_switch_ms"


def setting_of(gpu: physics.GpuSpec, name: str) -> float:
    """The value that this GPU has.

    Raises:
        BadRequestError: No setting has this name.
    """
    if name == IDLE_W:
        return float(physics.idle_w(gpu, gpu.clock_max_mhz))
    if name == MEMORY_SHARE:
        memory, chip = gpu.power.memory_j, gpu.power.chip_j * _top_voltage(gpu) ** 2
        return memory / (memory + chip)
    if name == DECODE_CLOCK_C:
        return gpu.decode.clock_c0
    if name == CLOCK_SWITCH_MS:
        return gpu.clock_switch_ms
    raise BadRequestError(
        f"{name!r} is unknown",
        field="setting",
        expected=", ".join((IDLE_W, MEMORY_SHARE, DECODE_CLOCK_C, CLOCK_SWITCH_MS)),
    )


def with_setting(gpu: physics.GpuSpec, name: str, value: float) -> physics.GpuSpec:
    """The same GPU but for one uncertain constant.

    `idle_w` stretches what idle power has above the parked device, at every clock.
    `memory_share` is the share of a byte's energy at the top clock that no clock can lower. The
    power of the steps of `reference_points` stays.
    `decode_clock_c` is c0 of the clock effect G; latency at the top clock stays.

    Raises:
        BadRequestError: No setting has this name, or the value is outside its range.
    """
    low, _, high = SENSITIVITIES.get(name, (0.0, 0.0, 0.0))
    current = setting_of(gpu, name)
    if not low <= value <= high:
        raise BadRequestError(f"is {value}", field=name, expected=f"{low:g} to {high:g}")
    if value == current:
        return gpu
    if name == IDLE_W:
        return replace(gpu, power=_idle(gpu, value))
    if name == MEMORY_SHARE:
        return replace(gpu, power=_memory_share(gpu, value))
    if name == DECODE_CLOCK_C:
        return replace(gpu, decode=replace(gpu.decode, clock_c0=value))
    return replace(gpu, clock_switch_ms=value)


def reference_points(gpu: physics.GpuSpec) -> tuple[tuple[Work, float], tuple[Work, float]]:
    """What every `memory_share` draws the same power for: two steps of an 8B model.

    Returns:
        (work, clock in MHz) of a long prefill at the clock that the cap leaves it, and of a decode
        step at the top clock.
    """
    model, top = physics.model_named("llama-8b"), gpu.clock_max_mhz
    prefill, decode = physics.prefill_work(model, 8192), physics.decode_work(model, 16, 1024)
    capped = float(physics.capped_clock_mhz(gpu, prefill, gpu.sms_total, top))
    return (prefill, capped), (decode, float(top))


def _idle(gpu: physics.GpuSpec, value: float) -> PowerFit:
    fit, parked = gpu.power, physics.parked_w(gpu)
    stretch = (value - parked) / fit.context_w
    return replace(
        fit,
        idle_base_w=parked + (fit.idle_base_w - parked) * stretch,
        idle_slope_w=fit.idle_slope_w * stretch,
        context_w=fit.context_w * stretch,
    )


def _memory_share(gpu: physics.GpuSpec, value: float) -> PowerFit:
    """For each chip_j one flop_j keeps the prefill's power; bisection finds the decode's chip_j."""
    ratio = value / (1.0 - value) * _top_voltage(gpu) ** 2  # memory_j over chip_j
    prefill, decode = reference_points(gpu)
    target_w = _dynamic_w(gpu, decode)
    low, high = 0.0, 4.0 * (gpu.power.chip_j + gpu.power.memory_j)
    for _ in range(_HALVINGS):
        chip_j = (low + high) / 2.0
        fit = replace(gpu.power, chip_j=chip_j, memory_j=ratio * chip_j)
        fit = replace(fit, flop_j=_flop_j(gpu, fit, prefill))
        if _dynamic_w(replace(gpu, power=fit), decode) < target_w:
            low = chip_j
        else:
            high = chip_j
    return fit


def _flop_j(gpu: physics.GpuSpec, fit: PowerFit, prefill: tuple[Work, float]) -> float:
    """The flop_j with which the prefill draws what it draws on `gpu`.

    Its power lies where the voltage slope is the high one, so bytes and FLOPs add up.
    """
    bytes_w = _dynamic_w(
        replace(gpu, power=replace(fit, flop_j=0.0, slope_low=fit.slope_high)), prefill
    )
    flops_w = _dynamic_w(gpu, prefill) - bytes_w
    one = replace(fit, flop_j=1e-12, chip_j=0.0, memory_j=0.0, slope_low=fit.slope_high)
    return 1e-12 * flops_w / _dynamic_w(replace(gpu, power=one), prefill)


def _dynamic_w(gpu: physics.GpuSpec, point: tuple[Work, float]) -> float:
    work, clock_mhz = point
    seconds = float(physics.latency_ms(gpu, work, gpu.sms_total, clock_mhz)) / 1e3
    rates = float(work.flops) / seconds, float(work.bytes_moved) / seconds
    return float(physics.dynamic_w(gpu, *rates, clock_mhz))


def _top_voltage(gpu: physics.GpuSpec) -> float:
    """Voltage at the top clock over its minimum, under load."""
    above_knee = max(0.0, gpu.clock_max_mhz / 1e3 - gpu.power.knee_ghz)
    return 1.0 + above_knee * gpu.power.slope_high


_HALVINGS = 60
_H100 = physics.gpu_named("h100")
_BOUNDS = {
    # A bare H100 NVL idles at 62 W, and contexts add 26 W (A100) to 66 W (L40S): arXiv 2605.23918.
    # The default is an H200's line through 82 W at 1020 and 98 W at 1545 MHz (arXiv 2607.00819).
    IDLE_W: (85.0, 140.0),
    # gpu-benches shows 121 pJ/B at 1980 MHz on an H200 and no split. None at least: decode on an
    # A100 (EnergyLLM) leaves no part that does not move with f·v². Half at most [A].
    MEMORY_SHARE: (0.0, 0.5),
    # An A100 has 0.577 (EnergyLLM), HBM per unit of on-chip bandwidth is equal on an H100 and 1.4
    # times that on an H200: 0.8 at most. An H100 NVL at 840 of 1785 MHz shows no slowdown of Llama
    # (mertside/ai-inference-energy, times in steps of 0.25 s): 0.45 at least.
    DECODE_CLOCK_C: (0.45, 0.8),
    # [A] EnergyLLM assumes 50 ms; arXiv 2502.20075 found a wide spread between target clocks.
    CLOCK_SWITCH_MS: (5.0, 500.0),
}
SENSITIVITIES: Mapping[str, Range] = MappingProxyType(
    {name: Range(low, setting_of(_H100, name), high) for name, (low, high) in _BOUNDS.items()}
)
"""Every uncertain constant by name. Units are those of the name; shares and c have none."""
