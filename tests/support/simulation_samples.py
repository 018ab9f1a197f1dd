"""Reports made up for tests: plausible in shape, drawn from a seed."""

import msgspec
import numpy as np

from festina.simulator.histogram import Histogram
from festina.simulator.report import Ablation, SensitivityPoint, SimulationReport
from festina.simulator.result import EnergyBy, ModelResult, PolicyResult, Span, Timeline

RATIOS = {
    "festina": 1.0,
    "festina-paper": 1.42,
    "serverlessllm": 2.61,
    "muxserve": 2.33,
    "dilu": 2.29,
    "aegaeon": 2.12,
    "aegvoltana": 1.71,
}
POLICIES = tuple(RATIOS)
KINDS = {"active": 0.62, "idle": 0.2, "parked": 0.08, "switching": 0.01, "loading": 0.08}


def log_edges_ms():
    """0.1 ms to 1000 s, 40 bins a decade."""
    return tuple(0.1 * 10 ** (index / 40) for index in range(281))


def histogram_of(values_ms):
    edges = log_edges_ms()
    bins = np.searchsorted(np.asarray(edges), np.asarray(values_ms), side="right") - 1
    counts = np.bincount(np.clip(bins, 0, len(edges) - 2), minlength=len(edges) - 1)
    return Histogram(edges, tuple(int(count) for count in counts))


def policy_result(policy, *, energy_j=3.0e6, seed=1, samples=360, **changes):
    rng = np.random.default_rng(seed)
    parts = {kind: share * energy_j for kind, share in KINDS.items()}
    parts["migrating"] = energy_j - sum(parts.values())
    ttft = histogram_of(rng.lognormal(4.6, 0.7, 5000))
    tbt = histogram_of(rng.lognormal(3.4, 0.45, 20000))
    wave = 1 + 0.4 * np.sin(np.arange(samples) / 20) + 0.1 * rng.standard_normal(samples)
    awake = np.clip(np.round(4 * wave), 1, 8)
    timeline = Timeline(
        interval_s=3600 / samples,
        power_w=tuple(float(value) for value in energy_j / 3600 * wave),
        clock_mhz=tuple(float(value) for value in 1100 + 200 * wave),
        gpus_awake=tuple(float(value) for value in awake),
        running=tuple(float(value) for value in 10 * wave),
        queued=tuple(float(value) for value in wave),
    )
    result = PolicyResult(
        policy=policy,
        energy_j=energy_j,
        energy_by=EnergyBy(**parts),
        completed=28790,
        failed=2,
        rejected=8,
        slo_attainment=0.991,
        ttft_attainment=0.995,
        tbt_attainment=0.996,
        ttft_ms=ttft.percentiles(),
        tbt_ms=tbt.percentiles(),
        output_tokens=8_265_600,
        gpus_awake_mean=float(awake.mean()),
        migrations=211,
        clock_switches=1804,
        cold_starts=37,
        simulated_s=3612.5,
        wall_s=9.75,
        digest=f"{seed:016x}",
        timeline=timeline,
        ttft_histogram=ttft,
        tbt_histogram=tbt,
        per_model=(
            ModelResult("chat-3b", 14400, 0.993, energy_j * 0.4),
            ModelResult("chat-8b", 14400, 0.989, energy_j * 0.6),
        ),
        cold_start_attainment=0.87,
    )
    return msgspec.structs.replace(result, **changes)


def report(*, scale=1.0, policies=POLICIES, ablation=True, sensitivity=True, **changes):
    results = tuple(
        policy_result(policy, energy_j=2.1e6 * scale * RATIOS[policy] ** scale, seed=index)
        for index, policy in enumerate(policies)
    )
    whole = SimulationReport(
        workload="steady-poisson",
        gpus=8,
        gpu="h100-sxm",
        slo="strict",
        seed=101,
        requests=28800,
        load=1.0,
        synthetic=True,
        version="0.1.0",
        results=results,
        oracle_energy_j=1.7e6 * scale,
        oracle_attainment=0.991,
        ablation=_ablation(scale) if ablation else (),
        sensitivity=_sensitivity(scale) if sensitivity else (),
    )
    return msgspec.structs.replace(whole, **changes)


def spans():
    return (
        Span(0, "chat-8b", "prefill", 1000.0, 20.0, 1395.0, 1, 512, 132, 520.0),
        Span(0, "chat-8b", "decode", 1020.0, 8.0, 990.0, 4, 4, 96, 260.0),
        Span(0, "chat-3b", "decode", 1021.0, 5.0, 990.0, 2, 2, 32, 260.0),
        Span(1, "", "wake", 1005.0, 1500.0, 345.0),
    )


def _ablation(scale):
    off = {"all on": 1.0, "pace": 1.31, "parking": 1.18, "knee": 1.07, "forecast": 0.995}
    rungs = {"base": 1.9, "operating point": 1.62, "local priority": 1.58, "consolidation": 1.42}
    runs = [("festina", label, ratio) for label, ratio in off.items()]
    runs += [("festina-paper", label, ratio) for label, ratio in rungs.items()]
    return tuple(
        Ablation(ladder, label, policy_result(ladder, energy_j=2.1e6 * scale * ratio, samples=4))
        for ladder, label, ratio in runs
    )


def _sensitivity(scale):
    knobs = {
        "idle_power_w": ("W", (60.0, 109.0, 130.0)),
        "clock_switch_ms": ("ms", (10.0, 50.0, 500.0)),
        "decode_clock_c": ("", (0.45, 0.6, 0.75)),
    }
    points = []
    for number, (knob, (unit, values)) in enumerate(knobs.items()):
        for place, value in enumerate(values):
            bend = 1 + (place - 1) * 0.06 * (number + 1)
            energy = {
                policy: 2.1e6 * scale * (1 if policy == "festina" else ratio * bend)
                for policy, ratio in RATIOS.items()
            }
            attained = dict.fromkeys(RATIOS, 0.99)
            points.append(SensitivityPoint(knob, value, unit, place == 1, energy, attained))
    return tuple(points)
