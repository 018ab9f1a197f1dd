"""A small profile of simple formulas, and summaries, for tests of the decisions."""

import itertools

import numpy as np

from festina.control.profile import ProfileTable
from festina.control.profile_csv import CELL, Grid, ModelProfile
from festina.profile_format import ModelInfo
from festina.types import GpuSummary, ModelState, ModelSummary, Phase, Provenance

SMS = (20, 40, 80, 100)
CLOCKS_MHZ = (500, 1000, 2000)
IDLE_W = (50.0, 60.0, 90.0)
PARKED_W = 10.0
SPREAD = 0.02
WEIGHT_BYTES = 1 << 20
KV_BYTES = 1024
LOAD_MS = 100.0
WAKE_MS = 40.0
CONTEXT_TOKENS = 4096
BYTES_PER_S = 1e11
DEVICE = "sample"

_KNOTS = {
    Phase.PREFILL: ((16, 64, 256, 1024, 4096), (0, 2048)),
    Phase.DECODE: ((1, 4, 16, 64), (128, 1024, 8192)),
}


def latency_ms(phase: Phase, work0: float, work1: float, sms: int, clock_mhz: int) -> float:
    """Prefill follows clock and SMs, decode hardly does."""
    speed = (clock_mhz / 1000) * (sms / 100)
    if phase == Phase.PREFILL:
        return 1.0 + (0.02 * work0 + 0.001 * work1) / speed
    return 4.0 + 0.05 * work0 / speed + 1e-5 * work0 * work1 + 1.0 / speed


def power_w(sms: int, clock_mhz: int) -> float:
    """Dynamic power: more than linear in the clock."""
    return sms * (0.5 + (clock_mhz / 1000) ** 2)


def profile(
    model: str, scale: float, sms: tuple[int, ...], clocks: tuple[int, ...], power: float = 1.0
) -> ModelProfile:
    grids = {}
    for phase, (knots0, knots1) in _KNOTS.items():
        cells = np.zeros((len(knots0), len(knots1), len(sms), len(clocks)), CELL)
        for (i, w0), (j, w1), (r, s), (c, f) in itertools.product(
            enumerate(knots0), enumerate(knots1), enumerate(sms), enumerate(clocks)
        ):
            cell = cells[i, j, r, c]
            cell["latency_ms"] = scale * latency_ms(phase, w0, w1, s, f or 1000)
            cell["power_w"] = power * power_w(s, f or 1000)
            cell["bytes_per_s"] = BYTES_PER_S
            cell["flops_per_s"] = 1e12
            cell["spread"] = SPREAD
        cells["latency_factor"] = cells["power_factor"] = 1.0
        cells["samples"] = 1
        grids[phase] = Grid(knots0, knots1, cells)
    info = ModelInfo(
        device=DEVICE,
        model=model,
        sms_total=sms[-1],
        memory_bytes=1 << 30,
        weight_bytes=WEIGHT_BYTES,
        kv_bytes_per_token=KV_BYTES,
        context_tokens=CONTEXT_TOKENS,
        load_ms=LOAD_MS,
        wake_ms=WAKE_MS,
        parked_w=PARKED_W,
    )
    idle_w = IDLE_W[: len(clocks)]
    prefill, decode = grids[Phase.PREFILL], grids[Phase.DECODE]
    return ModelProfile(info, sms, clocks, idle_w, prefill, decode, "modelled")


def table(
    scales: tuple[float, ...] = (1.0, 2.0),
    sms: tuple[int, ...] = SMS,
    clocks: tuple[int, ...] = CLOCKS_MHZ,
    power: float = 1.0,
) -> ProfileTable:
    """Models `m0`, `m1`, ...; each is `scale` times as slow as the formulas say.

    All draw `power` times the dynamic power of the formulas.
    """
    return ProfileTable.from_profiles(
        [profile(f"m{i}", scale, sms, clocks, power) for i, scale in enumerate(scales)]
    )


def resident(model: str, running: int = 0, **changes: object) -> ModelSummary:
    """A deployment that is ready, with 300 tokens of context per running request."""
    fields: dict[str, object] = {
        "state": ModelState.READY,
        "running": running,
        "context_tokens": 300 * running,
        "tbt_ms": 100.0 if running else float("inf"),
    }
    return ModelSummary(model, **(fields | changes))


def summary(*models: ModelSummary, **changes: object) -> GpuSummary:
    """An awake GPU at 1000 MHz that holds `models`."""
    fields: dict[str, object] = {
        "seq": 1,
        "clock_mhz": 1000,
        "clock_target_mhz": 1000,
        "sms_total": 100,
        "sms_free": 100,
        "free_in_ms": 0.0,
        "kv_tokens_total": 100_000,
        "kv_tokens_free": 50_000,
        "memory_free_bytes": 1 << 28,
        "power_w": 100.0,
        "power_source": Provenance.MODELLED,
        "energy_j": 0.0,
        "parked": False,
        "models": models,
    }
    return GpuSummary(**(fields | changes))
