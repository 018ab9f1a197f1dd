"""Latency of a step on the analytic GPU (DESIGN 4.5). Pure; broadcasts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from festina.device.physics.gpus import DecodeFit, GpuSpec, PrefillFit
from festina.device.physics.work import Array, Work
from festina.types import Phase

_MS = 1e3


def latency_ms(gpu: GpuSpec, work: Work, sms: ArrayLike, clock_mhz: ArrayLike) -> Array:
    """Duration of a step at a clock that the power cap allows (`power.run` respects the cap).

    Args:
        gpu: Where it runs.
        work: What it does.
        sms: SMs of its partition, in (0, sms_total].
        clock_mhz: SM clock, in (0, clock_max_mhz].
    """
    share = np.asarray(sms, np.float64) / gpu.sms_total
    speed = np.asarray(clock_mhz, np.float64) / gpu.clock_max_mhz
    if work.phase is Phase.PREFILL:
        return _prefill_ms(gpu.prefill, work, share, speed)
    return _decode_ms(gpu.decode, work, share, speed)


def bandwidth_stretch(gpu: GpuSpec, bytes_per_s: ArrayLike) -> float:
    """How much longer co-running tasks take because they share the memory's bandwidth.

    HBM and L2 are not partitioned: the demands of all co-runners add up and are capped at B.

    Args:
        gpu: Where they run.
        bytes_per_s: What each would read if it were alone.

    Returns:
        A factor ≥ 1 for all of them.
    """
    demand = float(np.asarray(bytes_per_s, dtype=np.float64).sum())
    return max(1.0, demand / gpu.decode.kv_bytes_per_s)


def load_ms(gpu: GpuSpec, resident_bytes: float) -> float:
    """Time to bring weights from pinned host memory onto the device."""
    return gpu.load_fixed_ms + _MS * resident_bytes / gpu.load_bytes_per_s


def _prefill_ms(fit: PrefillFit, work: Work, share: Array, speed: Array) -> Array:
    compute_s = work.flops / (fit.flops_per_s * share**fit.sm_exponent * speed)
    memory_s = work.bytes_moved / (fit.bytes_per_s * _bandwidth(share, fit.bandwidth_share))
    busy_ms = _MS * _join(compute_s, memory_s, fit.norm)
    return fit.step_ms + fit.sequence_ms * work.sequences + busy_ms


def _decode_ms(fit: DecodeFit, work: Work, share: Array, speed: Array) -> Array:
    # Attention is bound by reading the KV cache, so its FLOPs cost energy but no time of their own.
    compute = share**fit.sm_exponent
    bandwidth = _bandwidth(share, fit.bandwidth_share)
    dense_s = _join(
        work.dense_flops / (fit.flops_per_s * compute),
        work.weight_bytes / (fit.bytes_per_s * bandwidth),
        fit.norm,
    )
    kv_s = work.kv_bytes / (fit.kv_bytes_per_s * bandwidth)
    top_ms = fit.sequence_ms * work.sequences / compute + _MS * (dense_s + kv_s)
    return top_ms * _clock_effect(fit, work.sequences, speed)


def _bandwidth(share: Array, saturation: float) -> Array:
    """Share of the bandwidth that a share of the SMs can draw: h(φ) of DESIGN 4.5."""
    return np.asarray(np.expm1(-share / saturation) / np.expm1(-1.0 / saturation))


def _join(a: Array, b: Array, norm: float) -> Array:
    """The p-norm: near max(a, b), smooth where they meet."""
    return np.asarray((a**norm + b**norm) ** (1.0 / norm))


def _clock_effect(fit: DecodeFit, batch: Array, speed: Array) -> Array:
    """How much longer decode takes below the top clock: G(x) of DESIGN 4.5."""
    c = fit.clock_c0 + fit.clock_c1 * np.log2(batch)
    q = fit.clock_q
    return np.asarray(((1.0 + (c / speed) ** q) / (1.0 + c**q)) ** (1.0 / q))
