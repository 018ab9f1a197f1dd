"""Idle watts and SM clock: without a context, with one, with 60 GB, and after work."""

from __future__ import annotations

from festina.device.nvidia.nvml import Gpu
from festina.device.nvidia.opening import counted_power_w
from festina.device.physics import model_named

from .figures import Outcome
from .rig import Rig

SHAPE = "llama-8b"
RESIDENT_BYTES = 60e9
MIXED_S = 3.0
"""Of work before the looks after it."""
FADE_S = 5.0


def bare(gpu: Gpu, clock, sleep, seconds: float) -> dict[str, float]:
    """Before this process has made any context."""
    return {f"idle_bare_{name}": value for name, value in look(gpu, clock, sleep, seconds).items()}


def look(gpu: Gpu, clock, sleep, seconds: float) -> dict[str, float]:
    """Mean watts by the counter, and the clock at the end."""
    power_w = counted_power_w(gpu, seconds, clock, sleep)
    return {"w": power_w, "mhz": float(gpu.clock_mhz())}


def run(rig: Rig) -> Outcome:
    """With a context first, then with much memory taken, then after some seconds of work."""
    values: dict[str, float] = {}

    def note(name: str, seconds: float) -> None:
        found = look(rig.gpu, rig.clock, rig.sleep, seconds)
        values.update({f"idle_{name}_{unit}": value for unit, value in found.items()})

    rig.sleep(FADE_S)
    note("context", rig.window_s)
    shape = model_named(SHAPE)
    room = min(RESIDENT_BYTES, 0.9 * rig.device.memory_bytes) - shape.resident_bytes
    kv_tokens = max(4096, int(room / shape.kv_bytes_per_token))
    with rig.model(SHAPE, kv_tokens, 4096) as model:
        rig.sleep(FADE_S)
        note("60gb", rig.window_s)
        values["idle_60gb_resident_gb"] = (
            shape.resident_bytes + kv_tokens * shape.kv_bytes_per_token
        ) / 1e9
        batch = rig.step(model, "prefill", 2048, 0, rig.whole)
        end = rig.clock() + MIXED_S
        while rig.clock() < end:
            rig.engine.step(batch)
        worked = rig.clock()
        note("after_0s", 1.0)
        for seconds in (10.0, 60.0):
            rig.sleep(max(0.0, worked + seconds - rig.clock()))
            note(f"after_{seconds:.0f}s", 1.0)
    return Outcome(values)
