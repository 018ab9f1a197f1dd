"""The analytic GPU (DESIGN 4.5): how long a step takes and what it draws, without a GPU.

Everything here is pure and broadcasts over numpy arrays: work, SMs and clocks may be scalars or
arrays. Whatever comes out of it is `modelled`; constants carry their source and error in `gpus`.
"""

from __future__ import annotations

from festina.device.physics.gpus import GPUS, GpuSpec, gpu_named
from festina.device.physics.latency import bandwidth_stretch, latency_ms, load_ms
from festina.device.physics.models import MODELS, Decoder, model_named
from festina.device.physics.power import (
    RunPoint,
    capped_clock_mhz,
    dynamic_w,
    idle_w,
    parked_w,
    run,
)
from festina.device.physics.work import Work, WorkShape, decode_work, prefill_work, step_work

__all__ = [
    "GPUS",
    "MODELS",
    "Decoder",
    "GpuSpec",
    "RunPoint",
    "Work",
    "WorkShape",
    "bandwidth_stretch",
    "capped_clock_mhz",
    "decode_work",
    "dynamic_w",
    "gpu_named",
    "idle_w",
    "latency_ms",
    "load_ms",
    "model_named",
    "parked_w",
    "prefill_work",
    "run",
    "step_work",
]
