"""A thousand agents × two hundred models at one scheduler process.

    python -m bench.many_agents --agents 1000 --models 200 --rate 500 --seconds 60

The scheduler is the real process; the agents are fake, in `--processes` processes, but each has its
own socket and says what a real one says: it registers, sends summaries, answers orders to load, and
confirms each placement. Requests arrive open loop; their latencies count from when they were due.
Meanwhile the whole cluster is asked for once a second, as the consolidator does. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
import zmq
from bench.many_agents.asking import Asker, Seen

from festina.config import Config, DeploymentConfig, SchedulerConfig
from festina.runtime.child import Child
from festina.runtime.worker import Task
from festina.types import Slo

WEIGHTS = ("sim:llama-3b", "sim:llama-8b", "sim:yi-9b", "sim:qwen-14b")
START_S, JOIN_S, STOP_S = 60.0, 120.0, 10.0
PROBES = 20
WARMUP_S = 3.0


@dataclass(frozen=True, slots=True)
class Run:
    """What a run came to.

    Attributes:
        seen: By clients.
        herds: By each process of agents.
        join_s: From the first registration to the last welcome.
        scheduler_share: CPU of the scheduler's process, its I/O thread included, over time.
        scheduler_bytes: Its resident memory at the end.
    """

    seen: Seen
    herds: list[dict[str, float]]
    join_s: float
    scheduler_share: float
    scheduler_bytes: int


def config_of(models: int) -> Config:
    """So many deployments of the shapes that have profiles."""
    return Config(
        deployments=tuple(
            DeploymentConfig(
                name=f"model{number}", weights=WEIGHTS[number % len(WEIGHTS)],
                slo=Slo(5000.0, 200.0),
            )
            for number in range(models)
        ),
        scheduler=SchedulerConfig(endpoint="tcp://127.0.0.1:0"),
    )  # fmt: skip


@contextmanager
def scheduler_of(config: Config) -> Iterator[tuple[str, psutil.Process]]:
    """The real scheduler process, and where it listens."""
    child = Child("scheduler", Task(config))
    try:
        yield child.endpoint(time.monotonic() + START_S), psutil.Process(child.pid)
    finally:
        child.stop()
        child.finish(time.monotonic() + STOP_S)


def herd(scheduler: str, first: int, count: int, models: int, hz: float) -> subprocess.Popen[str]:
    """A process of fake agents."""
    numbers = [scheduler, *map(str, (first, count, models, hz))]
    return subprocess.Popen(
        [sys.executable, "-m", "bench.many_agents.herd", *numbers],
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Inside, so many processes compute all the time, as engines on the same machine do."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def line_of(process: subprocess.Popen[str]) -> str:
    """What it says next."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, f"a process of agents ended with {process.wait()}"
    return line


def run(agents: int, models: int, processes: int, hz: float, rate_hz: float, seconds: float) -> Run:
    """All of it."""
    with scheduler_of(config_of(models)) as (endpoint, scheduler):
        shares = [len(part) for part in np.array_split(np.arange(agents), processes)]
        firsts = np.cumsum([0, *shares[:-1]]).tolist()
        start = time.monotonic()
        herds = [
            herd(endpoint, first, count, models, hz)
            for first, count in zip(firsts, shares, strict=True)
        ]
        try:
            for one in herds:
                line_of(one)
            for one in herds:
                assert line_of(one) == "joined"
            join_s = time.monotonic() - start
            seen, share = measure(endpoint, scheduler, models, rate_hz, seconds)
            resident = scheduler.memory_info().rss
            for one in herds:
                one.terminate()
            tallies = [json.loads(line_of(one)) for one in herds]
        finally:
            for one in herds:
                one.kill()
                one.wait()
                assert one.stdout is not None
                one.stdout.close()
    return Run(seen, tallies, join_s, share, resident)


def measure(
    endpoint: str, scheduler: psutil.Process, models: int, rate_hz: float, seconds: float
) -> tuple[Seen, float]:
    """After a warm-up: what clients saw, and the scheduler's share of a core."""
    with zmq.Context() as context:
        asker = Asker(context, endpoint, models, random.Random(1), PROBES)
        try:
            asker.run(rate_hz, min(WARMUP_S, seconds))
            before, start = scheduler.cpu_times(), time.monotonic()
            seen = asker.run(rate_hz, seconds)
            after, taken_s = scheduler.cpu_times(), time.monotonic() - start
        finally:
            asker.close()
    used_s = after.user + after.system - before.user - before.system
    return seen, used_s / taken_s


def page(given: argparse.Namespace, done: Run) -> str:
    """The table."""
    seen = done.seen
    summaries = sum(one["summaries"] for one in done.herds)
    registers = sum(one["registers"] for one in done.herds)
    rows = [
        ("agents × models", f"{given.agents:,} × {given.models}"),
        ("start of the agents to the last welcome", f"{done.join_s:.1f} s"),
        ("summaries an agent and second", f"{given.hz:g}"),
        ("requests a second", f"{given.rate:g} for {given.seconds:g} s"),
        ("other processes that compute", f"{given.busy}"),
        ("ends", ", ".join(f"{count:,} {end}" for end, count in sorted(seen.ends.items()))),
        ("due to decision p50 / p99 / max", _figures(seen.decision_ms)),
        ("ping to pong (heartbeat lag) p50 / p99 / max", _figures(seen.heartbeat_ms)),
        (
            "silence of an agent to the scheduler p50 / p99 / max",
            _figures(seen.silent_ms),
        ),
        ("answer to a question for the whole cluster p50 / p99 / max", _figures(seen.look_ms)),
        ("the scheduler's share of a core", f"{done.scheduler_share:.0%}"),
        ("its resident memory", f"{done.scheduler_bytes / 2**20:.0f} MiB"),
        ("summaries sent, agents asked to register again", f"{summaries:,.0f}, {registers:.0f}"),
        ("latest summary behind its time", f"{max(one['late_s_max'] for one in done.herds):.2f} s"),
    ]
    return "| what | figure |\n| --- | --- |\n" + "".join(f"| {a} | {b} |\n" for a, b in rows)


def _figures(values: Sequence[float]) -> str:
    if not values:
        return "-"
    p50, p99, most = np.percentile(values, [50, 99, 100])
    return f"{p50:.2f} / {p99:.2f} / {most:.2f} ms"


def main(arguments: Sequence[str]) -> int:
    """Run and print; 1 if an agent was lost or a request not answered."""
    parser = argparse.ArgumentParser(prog="python -m bench.many_agents", description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1, help="of fake agents")
    parser.add_argument("--hz", type=float, default=10.0, help="summaries an agent and second")
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--busy", type=int, default=0, help="other processes that compute")
    given = parser.parse_args(arguments)
    with busy_cores(given.busy):
        done = run(given.agents, given.models, given.processes, given.hz, given.rate, given.seconds)
    sys.stdout.write(page(given, done))
    lost = sum(one["registers"] for one in done.herds)
    return 1 if lost or len(done.seen.decision_ms) < int(given.rate * given.seconds) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
