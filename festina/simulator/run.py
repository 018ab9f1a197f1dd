"""One policy on one workload: sets the native simulation up, and reads what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from festina import _core
from festina.device import physics
from festina.errors import BadRequestError
from festina.simulator.histogram import Histogram
from festina.simulator.result import EnergyBy, ModelResult, PolicyResult, Span, Timeline
from festina.simulator.tables import Bias, TruthSettings, belief_table, draw_bias, truth_table
from festina.simulator.workload import Workload

_STORAGE_BYTES_PER_S = 6e9  # [A] NVMe, read straight into pinned memory
_PEER_BYTES_PER_S = 300e9  # [A] NVLink 4, two thirds of its 450 GB/s each way
_MOVE_FIXED_MS = 3.0  # [A] pause of a request that migrates, beside its copy
_UNSENT, _DONE = 0, 5  # Stage of csrc/core/simulator/types.hpp


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """The cluster that is simulated.

    Attributes:
        gpus: How many.
        gpu: Which kind, its constants perhaps overridden.
        seed: Of the truth's bias and noise.
        truth: How far the simulated GPUs differ from the profile.
        host_memory_bytes: Pinned host memory for weights, per GPU.
        default_clock_mhz: Where a policy sets no clock; 0 is the device's highest.
        batch_max: Sequences in a step, at most.
    """

    gpus: int = 8
    gpu: physics.GpuSpec = field(default_factory=lambda: physics.gpu_named("h100"))
    seed: int = 101
    truth: TruthSettings = field(default_factory=TruthSettings)
    host_memory_bytes: float = 192 * 2.0**30
    default_clock_mhz: int = 0
    batch_max: int = 256

    def __post_init__(self) -> None:
        """Raises BadRequestError where a number is out of range."""
        if self.gpus < 1:
            raise BadRequestError("is out of range", field="gpus", expected="at least 1")
        if self.seed < 0:
            raise BadRequestError("is out of range", field="seed", expected="0 or more")


def simulate(
    workload: Workload,
    cluster: ClusterSettings,
    policy: str,
    options: Mapping[str, float | bool] | None = None,
    *,
    progress: Callable[[float], bool] | None = None,
    trace_window_s: tuple[float, float] | None = None,
) -> PolicyResult:
    """Runs one policy over a workload in virtual time.

    Args:
        workload: What is asked of the cluster.
        cluster: GPUs, and how they differ from what policies believe.
        policy: A name of `POLICIES`.
        options: Switches and numbers of the policy.
        progress: Told the share of simulated time that has passed; False stops the run early.
        trace_window_s: Spans of this window are kept in the result.

    Raises:
        BadRequestError: Unknown policy or option, or a model that fits no GPU.
    """
    shapes = tuple(dict.fromkeys(deployment.shape for deployment in workload.deployments))
    _require_fit(workload, cluster.gpu)
    stopped: list[bool] = []

    def told(share: float) -> bool:
        going = progress is None or progress(share)
        if not going:
            stopped.append(True)
        return going

    started = time.perf_counter()
    found = _core.simulate(
        belief_table(cluster.gpu, shapes).native,
        truth_table(cluster.gpu, shapes).native,
        _device(cluster.gpu),
        _setup(workload, cluster, trace_window_s),
        _deployments(workload, cluster, shapes),
        workload.columns(),
        policy,
        {name: float(value) for name, value in (options or {}).items()},
        told,
    )
    wall_s = time.perf_counter() - started
    return _result(workload, policy, found, wall_s, interrupted=bool(stopped))


def truth_bias(workload: Workload, cluster: ClusterSettings) -> Bias:
    """By what factors the simulated GPUs differ from the profile, per deployment."""
    rng = np.random.default_rng([cluster.seed, 1])
    return draw_bias(len(workload.deployments), rng, cluster.truth)


def _require_fit(workload: Workload, gpu: physics.GpuSpec) -> None:
    for deployment in workload.deployments:
        if physics.model_named(deployment.shape).resident_bytes > gpu.memory_bytes:
            raise BadRequestError(
                f"{deployment.name} ({deployment.shape}) fits no {gpu.kind}",
                field="workload",
                expected=f"weights of at most {gpu.memory_bytes / 2**30:.0f} GiB",
            )


def _device(gpu: physics.GpuSpec) -> dict[str, float]:
    return {
        "memory_bytes": float(gpu.memory_bytes),
        "parked_w": physics.parked_w(gpu),
        "power_cap_w": gpu.power.cap_w,
        "wake_ms": gpu.wake_ms,
        "clock_switch_ms": gpu.clock_switch_ms,
        "load_bytes_per_s": gpu.load_bytes_per_s,
        "load_fixed_ms": gpu.load_fixed_ms,
        "storage_bytes_per_s": _STORAGE_BYTES_PER_S,
        "peer_bytes_per_s": _PEER_BYTES_PER_S,
        "move_fixed_ms": _MOVE_FIXED_MS,
        "bandwidth_bytes_per_s": gpu.prefill.bytes_per_s,
        "byte_j": gpu.power.memory_j + gpu.power.chip_j,
    }


def _setup(
    workload: Workload, cluster: ClusterSettings, window_s: tuple[float, float] | None
) -> dict[str, float]:
    start_s, end_s = window_s or (0.0, 0.0)
    return {
        "gpus": cluster.gpus,
        "seed": cluster.seed,
        "noise": cluster.truth.step_sigma,
        "host_memory_bytes": cluster.host_memory_bytes * cluster.gpus,
        "default_clock_mhz": cluster.default_clock_mhz,
        "batch_max": cluster.batch_max,
        "duration_ms": workload.duration_s * 1e3,
        "drain_ms": (workload.metered_s - workload.duration_s) * 1e3,
        "bucket_ms": _interval_s(workload) * 1e3,
        "window_from_ms": start_s * 1e3,
        "window_to_ms": end_s * 1e3,
    }


def _interval_s(workload: Workload) -> float:
    return max(1.0, workload.duration_s / 360)


def _deployments(
    workload: Workload, cluster: ClusterSettings, shapes: Sequence[str]
) -> list[dict[str, Any]]:
    bias = truth_bias(workload, cluster)
    return [
        {
            "name": deployment.name,
            "profile": shapes.index(deployment.shape),
            "time_bias": bias.time[index].tolist(),
            "power_bias": bias.power[index].tolist(),
        }
        for index, deployment in enumerate(workload.deployments)
    ]


def _result(
    workload: Workload,
    policy: str,
    found: dict[str, Any],
    wall_s: float,
    *,
    interrupted: bool,
) -> PolicyResult:
    requests = found["requests"]
    asked = requests["stage"] != _UNSENT  # of an interrupted run; else all
    done = requests["stage"] == _DONE
    ttft = done & (requests["first_ms"] - requests["sent_ms"] <= workload.ttft_ms)
    tbt = done & (requests["gaps_over"] <= (workload.output_tokens - 1) // 100)
    edges = tuple(found["edges_ms"].tolist())
    ttft_histogram = Histogram(edges, tuple(found["ttft"].tolist()))
    tbt_histogram = Histogram(edges, tuple(found["tbt"].tolist()))
    timeline = _timeline(workload, found)
    both = ttft & tbt
    cold = requests["cold"] != 0
    return PolicyResult(
        policy=policy,
        energy_j=float(found["energy_j"].sum()),
        energy_by=EnergyBy(*(float(part) for part in found["energy_j"])),
        completed=found["completed"],
        failed=found["failed"],
        rejected=found["rejected"],
        slo_attainment=_share(both[asked]),
        ttft_attainment=_share(ttft[asked]),
        tbt_attainment=_share(tbt[asked]),
        ttft_ms=ttft_histogram.percentiles(),
        tbt_ms=tbt_histogram.percentiles(),
        output_tokens=found["output_tokens"],
        gpus_awake_mean=float(found["timeline"]["awake_ms"].sum() / max(found["end_ms"], 1e-9)),
        migrations=found["migrations"],
        clock_switches=found["clock_switches"],
        cold_starts=found["loads"],
        simulated_s=found["end_ms"] / 1e3,
        wall_s=wall_s,
        digest=f"{found['digest']:016x}",
        interrupted=interrupted,
        timeline=timeline,
        ttft_histogram=ttft_histogram,
        tbt_histogram=tbt_histogram,
        per_model=_per_model(workload, found, both),
        cold_start_attainment=_share(both[cold]) if cold.any() else None,
        window=_window(workload, found),
    )


def _share(good: NDArray[np.bool_]) -> float:
    return float(good.mean()) if len(good) else 1.0


def _timeline(workload: Workload, found: dict[str, Any]) -> Timeline:
    interval_s = _interval_s(workload)
    raw = found["timeline"]
    count = min(len(raw["energy_j"]), len(raw["running"]))
    awake_ms = raw["awake_ms"][:count]
    clock = np.divide(
        raw["clock_mhz_ms"][:count], awake_ms, out=np.zeros(count), where=awake_ms > 0
    )
    return Timeline(
        interval_s=interval_s,
        power_w=tuple((raw["energy_j"][:count] / interval_s).tolist()),
        clock_mhz=tuple(clock.tolist()),
        gpus_awake=tuple((awake_ms / (interval_s * 1e3)).tolist()),
        running=tuple(raw["running"][:count].astype(float).tolist()),
        queued=tuple(raw["queued"][:count].astype(float).tolist()),
    )


def _per_model(
    workload: Workload, found: dict[str, Any], attained: NDArray[np.bool_]
) -> tuple[ModelResult, ...]:
    """Joules by deployment: of its steps, and by residency of what was drawn without any."""
    requests, count = found["requests"], len(workload.deployments)
    stay_ms = np.maximum(requests["last_ms"] - requests["sent_ms"], 0.0)
    shared_j = float(found["energy_j"].sum() - requests["energy_j"].sum())
    energy_j = requests["energy_j"] + shared_j * stay_ms / max(float(stay_ms.sum()), 1e-9)
    sums = np.bincount(workload.model, energy_j, count)
    sent = requests["stage"] != _UNSENT
    asked = np.bincount(workload.model[sent], minlength=count)
    met = np.bincount(workload.model, attained.astype(float), count)
    return tuple(
        ModelResult(
            name=deployment.name,
            requests=int(asked[index]),
            attainment=float(met[index] / asked[index]) if asked[index] else None,
            energy_j=float(sums[index]),
        )
        for index, deployment in enumerate(workload.deployments)
    )


def _window(workload: Workload, found: dict[str, Any]) -> tuple[Span, ...] | None:
    if not found["spans"]:
        return None
    return tuple(
        Span(
            gpu=gpu,
            model=workload.deployments[model].name,
            name=name,
            start_ms=start_ms,
            duration_ms=end_ms - start_ms,
            clock_mhz=clock_mhz,
            batch=batch,
            tokens=tokens,
            sms=sms,
        )
        for gpu, model, name, start_ms, end_ms, clock_mhz, sms, batch, tokens in found["spans"]
    )
