"""A cluster of simulated GPUs at a steady load for a long time, and then far too much of it.

    python -m bench.soak --minutes 30 --load 0.8

Real processes, real sockets, HTTP through the gateway; only the GPUs are modelled. First a closed
loop finds how much the cluster completes; then that share of it arrives for `--minutes`, some of it
badly behaved, while the memory, descriptors and threads of each process are sampled; then
`--overload` times as much as is completed arrives. Leaves with 1 if a process grew by 5 % or more
after `--warmup`, if a descriptor or shared memory is left over, if a process died, or if any
request got neither its answer nor a refusal that says when to come again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
from bench.soak.asking import Asker
from bench.soak.phases import Inside, Phase, closed, opened
from bench.soak.report import Soaked, faults, page
from bench.soak.watching import Watcher, shared_files

from festina.config import AgentConfig, Config, DeploymentConfig, GatewayConfig, SchedulerConfig
from festina.runtime.client import AsyncClient
from festina.runtime.gpu_spec import parse_gpus
from festina.runtime.supervisor import Cluster
from festina.types import Slo

BATCH_MAX, WAITING_MAX = 4, 8
MODELS = {"chat": "sim:llama-8b", "code": "sim:qwen-14b"}
QUEUES = 1 + WAITING_MAX // BATCH_MAX
"""Clients per place that fill batches and queues."""
QUIET_S = 90.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do; times in seconds."""

    gpus: str
    steady_s: float
    warmup_s: float
    calibrate_s: float
    overload_s: float
    load: float
    overload: float
    sample_s: float
    seed: int


def config_of(gpus: str) -> Config:
    """Small batches and short queues: a full cluster is soon reached and soon refuses."""
    return Config(
        gpus=gpus,
        deployments=tuple(
            DeploymentConfig(
                name=name, weights=weights, slo=Slo(20_000.0, 1_000.0), pace=0.0,
                kv_tokens=16384, preload=True,
            )
            for name, weights in MODELS.items()
        ),
        scheduler=SchedulerConfig(endpoint="tcp://127.0.0.1:0"),
        agent=AgentConfig(batch_max=BATCH_MAX, waiting_max=WAITING_MAX),
        gateway=GatewayConfig(http="127.0.0.1:0"),
    )  # fmt: skip


async def soak(cluster: Cluster, plan: Plan) -> Soaked:
    """All phases."""
    rng = random.Random(plan.seed)
    asker = Asker(cluster.url, tuple(MODELS), rng)
    places = len(parse_gpus(plan.gpus)) * BATCH_MAX
    watcher = Watcher(cluster.pids)
    async with AsyncClient(cluster.endpoint) as client:
        inside = Inside(client)

        async def steady(seconds: float, rate_hz: float, watched: bool) -> Phase:
            tick = watcher.sample if watched else lambda: None
            return await opened(asker, rate_hz, seconds, rng, tick, plan.sample_s, inside)

        most = await closed(asker, places * QUEUES, plan.calibrate_s)
        counts = most.ends.counts
        rate_hz = plan.load * (counts.total() - counts["refused"]) / most.seconds
        await steady(plan.warmup_s, rate_hz, watched=False)
        await inside.quiet(QUIET_S)
        before = watcher.look()
        under_load = await steady(plan.steady_s, rate_hz, watched=True)
        too_much = await steady(plan.overload_s, rate_hz / plan.load * plan.overload, watched=False)
        await inside.quiet(QUIET_S)
        await asyncio.sleep(2 * plan.sample_s)
        return Soaked(most, under_load, too_much, watcher, before, watcher.look())


def main(arguments: Sequence[str]) -> int:
    """Run it; 1 if something grew, was left over or went wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--gpus", default="sim:8")
    parser.add_argument("--minutes", type=float, default=30.0, help="of steady load")
    parser.add_argument("--warmup", type=float, default=3.0, help="minutes before samples count")
    parser.add_argument("--load", type=float, default=0.8, help="share of what is completed")
    parser.add_argument("--overload", type=float, default=3.0, help="times what is completed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", type=float, default=1.0, help="factor on the shorter phases")
    given = parser.parse_args(arguments)
    plan = Plan(
        given.gpus, given.minutes * 60, given.warmup * 60, 45 * given.short, 60 * given.short,
        given.load, given.overload, 5.0 * given.short, given.seed,
    )  # fmt: skip
    shared = shared_files()
    before = set(psutil.Process().children(recursive=True))
    with Cluster(config_of(plan.gpus)) as cluster:
        soaked = asyncio.run(soak(cluster, plan))
        dead = cluster.deaths()
    left = set(psutil.Process().children(recursive=True)) - before
    wrong = faults(soaked, [death.name for death in dead], shared_files() - shared, len(left))
    sys.stdout.write(page(soaked, wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
