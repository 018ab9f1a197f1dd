"""Small workloads written by hand, and what a policy does with them."""

import dataclasses
from unittest import mock

import numpy as np

from festina import _core
from festina.simulator.run import ClusterSettings, simulate
from festina.simulator.tables import TruthSettings
from festina.simulator.workload import Deployment, Workload

EXACT = TruthSettings(time_sigma=0.0, power_sigma=0.0, step_sigma=0.0)
"""Steps take as long as the profile says."""


def workload_of(rows, shapes, *, duration_s=60.0, ttft_ms=2000.0, tbt_ms=100.0):
    """`rows`: (arrival_ms, model, input_tokens, output_tokens), in order of arrival."""
    at, model, inputs, outputs = (np.array(column) for column in zip(*rows, strict=True))
    count = len(rows)
    return Workload(
        name="by-hand",
        deployments=tuple(Deployment(f"m{i}", shape) for i, shape in enumerate(shapes)),
        duration_s=duration_s,
        synthetic=True,
        arrival_ms=at.astype(np.float64),
        model=model.astype(np.int32),
        input_tokens=inputs.astype(np.int32),
        cached_tokens=np.zeros(count, np.int32),
        output_tokens=outputs.astype(np.int32),
        follows=np.full(count, -1, np.int32),
        ttft_ms=np.full(count, ttft_ms, np.float32),
        tbt_ms=np.full(count, tbt_ms, np.float32),
    )


def random_rows(models, per_s, duration_s, seed, *, inputs=(16, 1500), outputs=(1, 300)):
    """Poisson arrivals for every model alike."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(models * per_s * duration_s)
    at = np.sort(rng.uniform(0, duration_s * 1e3, count))
    return [
        (at[i], rng.integers(models), rng.integers(*inputs), rng.integers(*outputs))
        for i in range(count)
    ]


def play(policy, workload, *, gpus=1, exact=True, window_s=None, host_gib=192.0, **options):
    """Runs the policy; every span of the run is kept unless a window is given."""
    cluster = ClusterSettings(gpus=gpus, host_memory_bytes=host_gib * 2.0**30)
    if exact:
        cluster = dataclasses.replace(cluster, truth=EXACT)
    window_s = window_s or (0.0, workload.duration_s + 1e4)
    return simulate(workload, cluster, policy, options, trace_window_s=window_s)


def native_found(workload, cluster, policy, options=None):
    """The policy's result, and what the native simulation found: columns by request and GPU."""
    kept, native = [], _core.simulate

    def keep(*arguments):
        kept.append(native(*arguments))
        return kept[0]

    with mock.patch.object(_core, "simulate", keep):
        return simulate(workload, cluster, policy, options), kept[0]


def spans(result, name=None, model=None, gpu=None):
    """Spans of the run that match, by start."""
    found = [
        span
        for span in result.window or ()
        if name in (None, span.name) and model in (None, span.model) and gpu in (None, span.gpu)
    ]
    return sorted(found, key=lambda span: (span.start_ms, span.gpu))


def overlapping(first, second):
    """Pairs of spans that run at the same time on the same GPU."""
    return [
        (a, b)
        for a in first
        for b in second
        if a.gpu == b.gpu
        and a.start_ms < b.start_ms + b.duration_ms - 1e-6
        and b.start_ms < a.start_ms + a.duration_ms - 1e-6
    ]


def most_sms(steps):
    """The most SMs that steps of one GPU hold at the same time; an end comes before a start."""
    ends = [(round(s.start_ms + s.duration_ms, 6), -s.sms) for s in steps]
    starts = [(round(s.start_ms, 6), s.sms) for s in steps]
    held = most = 0
    for _, change in sorted(ends + starts):
        held += change
        most = max(most, held)
    return most


def all_ended_well(result, workload):
    """Nothing was lost: each request ended exactly once, as completed."""
    return (result.completed, result.failed, result.rejected) == (len(workload), 0, 0)
