"""The simulator: how fast virtual time passes, in which memory, and how the cost grows.

Each figure is a whole policy run in this process, set-up of the tables included. The two large
ones take minutes: `FESTINA_BENCH_FULL=1` adds one hour on 256 GPUs (about 920,000 requests).

For orientation, not measured by anything here: NVIDIA Dynamo's Rust replay is said to take 2.4 s,
splitwise-sim 16.3 s and Vidur 43.5 s on the Azure 2023 conversation trace (19,366 requests clipped
to 4,096 tokens, 4 single-model replicas, whole process), none of them with power or clocks;
`test_peer_trace` runs requests of that number and shape.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from festina.simulator.policies import POLICIES
from festina.simulator.run import ClusterSettings, simulate
from festina.simulator.workloads import build_workload

FULL = pytest.mark.skipif(
    not os.environ.get("FESTINA_BENCH_FULL"), reason="minutes: set FESTINA_BENCH_FULL=1"
)

PEAK = (
    "import json, resource, sys\n"
    "from festina.simulator.run import ClusterSettings, simulate\n"
    "from festina.simulator.workloads import build_workload\n"
    "gpus = int(sys.argv[1])\n"
    "simulate(build_workload('steady-poisson', gpus=gpus), ClusterSettings(gpus=gpus), 'festina')\n"
    "print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))\n"
)


def run(benchmark, name, policy, gpus, load=1.0):
    workload = build_workload(name, gpus=gpus, load=load)
    cluster = ClusterSettings(gpus=gpus)
    result = benchmark.pedantic(
        lambda: simulate(workload, cluster, policy), rounds=1, warmup_rounds=0
    )
    assert result.completed + result.failed + result.rejected == len(workload)
    seconds = benchmark.stats.stats.min
    benchmark.extra_info["requests"] = len(workload)
    benchmark.extra_info["requests_per_s"] = round(len(workload) / seconds)
    benchmark.extra_info["tokens_per_s"] = round(result.output_tokens / seconds)
    benchmark.extra_info["times_real_time"] = round(result.simulated_s / seconds)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_hour_on_8_gpus(benchmark, policy):
    run(benchmark, "steady-poisson", policy, 8)


@pytest.mark.parametrize("load", [0.35, 1.0, 3.5], ids=lambda load: f"load-{load}")
def test_growth_with_requests(benchmark, load):
    run(benchmark, "arena-flash", "festina", 8, load)


@pytest.mark.parametrize(
    "gpus", [8, 32, pytest.param(64, marks=FULL), pytest.param(256, marks=FULL)]
)
def test_growth_with_gpus(benchmark, gpus):
    run(benchmark, "steady-poisson", "festina", gpus)


@pytest.mark.parametrize("gpus", [8, pytest.param(256, marks=FULL)])
def test_peak_memory(benchmark, gpus):
    def peak_mib():
        out = subprocess.run(
            [sys.executable, "-c", PEAK, str(gpus)], capture_output=True, check=True
        ).stdout
        return json.loads(out) / 1024

    peak = benchmark.pedantic(peak_mib, rounds=1)
    benchmark.extra_info["peak_mib"] = round(peak)
    assert peak < 4096


def test_peer_trace(benchmark, tmp_path):
    """Conversation requests of the peers' shape, read from a file by the command, start to end."""
    rng = np.random.default_rng(5)
    n = 19_366
    arrival_s = np.sort(rng.uniform(0, 3500, n))
    inputs = np.clip(rng.lognormal(6.7, 0.9, n), 1, 4000).astype(int)
    outputs = np.clip(rng.lognormal(5.0, 0.8, n), 1, 1000).astype(int)
    path = tmp_path / "conversations.csv"
    rows = zip(arrival_s.round(4), inputs, outputs, strict=True)
    lines = [f"{t},{i},{o}" for t, i, o in rows]
    path.write_text("\n".join(["t_s,input_tokens,output_tokens", *lines]) + "\n")
    command = [sys.executable, "-m", "festina", "simulate", "--workload", str(path), "--gpus", "4"]
    command += ["--replicas", "4", "--context-tokens", "4096", "--policies", "festina"]
    command += ["--no-oracle", "--json"]
    result = benchmark.pedantic(
        lambda: subprocess.run(command, capture_output=True, check=True), rounds=3
    )
    report = json.loads(result.stdout)
    assert report["results"][0]["completed"] == n
    benchmark.extra_info["requests_per_s"] = round(n / benchmark.stats.stats.min)
