"""The two measurements: first tokens both ways while streams run, and tokens through one core."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from bench.gateway.probing import Way, probe
from bench.gateway.streams import Count, held

from festina.config import (
    AgentConfig,
    Config,
    DeploymentConfig,
    GatewayConfig,
    LinkConfig,
    SchedulerConfig,
)
from festina.runtime.client import AsyncClient
from festina.runtime.supervisor import Cluster
from festina.types import Slo

LENGTHS = (256, 768)
WARMUP_PROBES = 20
PROBING_MAX = 60
"""Sequences that a step has room for besides the streams'."""
OPEN_S, WARMUP_S, POLL_S = 60.0, 4.0, 0.05


@dataclass(frozen=True, slots=True)
class FirstTokens:
    """What the gateway adds to the time to the first token.

    Attributes:
        rate: Tokens a second of all the streams that were held open meanwhile.
        ttft_ms: Of each request, by the way that it took.
    """

    rate: float
    ttft_ms: dict[Way, list[float]]


@dataclass(frozen=True, slots=True)
class Streamed:
    """What one gateway streamed on one core.

    Attributes:
        tokens: How many reached their clients.
        taken_s: In so much time.
        cpu_s: Seconds of CPU that the gateway's process used for them.
    """

    tokens: int
    taken_s: float
    cpu_s: float


def config_of(gpus: int, tbt_ms: float, batch_max: int) -> Config:
    """A cluster of simulated H100 with one model.

    Args:
        gpus: How many.
        tbt_ms: Objective between tokens: how slow the clock may be, and so how fast tokens come.
        batch_max: Sequences in a step.
    """
    return Config(
        gpus=f"sim:H100-SXM5-80GB:{gpus}",
        deployments=(
            DeploymentConfig(
                name="chat", weights="sim:llama-8b", slo=Slo(20_000.0, tbt_ms), pace=0.0,
                kv_tokens=131_072, preload=True,
            ),
        ),
        link=LinkConfig(missed_max=60),
        scheduler=SchedulerConfig(endpoint="tcp://127.0.0.1:0"),
        agent=AgentConfig(batch_max=batch_max, client_timeout_s=60.0),
        gateway=GatewayConfig(http="127.0.0.1:0"),
    )  # fmt: skip


def first_tokens(
    streams: int, tbt_ms: float, probes: int, apart_s: float, warmup_s: float = WARMUP_S
) -> FirstTokens:
    """Send requests both ways while so many streams run.

    Args:
        streams: Held open through the gateway.
        tbt_ms: Objective between tokens.
        probes: Requests, both ways together.
        apart_s: Mean time between their arrivals.
        warmup_s: From the last stream's start to the first request.
    """
    config = config_of(1, tbt_ms, streams + PROBING_MAX)
    with Cluster(config) as cluster, held(cluster.url, streams, LENGTHS) as count:
        wait_open(count, streams, warmup_s)

        async def run() -> dict[Way, list[float]]:
            async with AsyncClient(cluster.endpoint, link=config.link) as client:
                await probe(client, cluster.url, WARMUP_PROBES, apart_s, random.Random(0))
                return await probe(client, cluster.url, probes, apart_s, random.Random(1))

        before, began = count.tokens.value, time.perf_counter()
        ttft_ms = asyncio.run(run())
        rate = (count.tokens.value - before) / (time.perf_counter() - began)
        require_whole(count)
    return FirstTokens(rate, ttft_ms)


def streamed(
    streams: int, gpus: int, tbt_ms: float, seconds: float, warmup_s: float = WARMUP_S
) -> Streamed:
    """Count what one gateway process streams on a core that it has for itself.

    Args:
        streams: At a time.
        gpus: Simulated ones that feed it.
        tbt_ms: Objective between tokens.
        seconds: How long to count.
        warmup_s: From the last stream's start to the count's.
    """
    with other_cores() as core:
        config = config_of(gpus, tbt_ms, streams)
        with Cluster(config) as cluster, held(cluster.url, streams, LENGTHS) as count:
            pid = cluster.pids["gateway"]
            pin(pid, (core,))
            gateway = psutil.Process(pid)
            wait_open(count, streams, warmup_s)
            used, before, began = gateway.cpu_times(), count.tokens.value, time.perf_counter()
            time.sleep(seconds)
            tokens, taken_s = count.tokens.value - before, time.perf_counter() - began
            after = gateway.cpu_times()
            require_whole(count)
    return Streamed(tokens, taken_s, after.user + after.system - used.user - used.system)


@contextmanager
def other_cores() -> Iterator[int]:
    """Inside, what this process starts leaves its first core free, which is told."""
    core, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, others or (core,))
    try:
        yield core
    finally:
        os.sched_setaffinity(0, (core, *others))


def pin(pid: int, cores: Iterable[int]) -> None:
    """Bind all threads of a process: each has a mask of its own."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def wait_open(count: Count, streams: int, warmup_s: float) -> None:
    """Until all streams have begun, and a while longer.

    Raises:
        TimeoutError: They do not begin.
    """
    until = time.monotonic() + OPEN_S
    while count.open.value < streams:
        if time.monotonic() > until:
            raise TimeoutError(f"{count.open.value} of {streams} streams began")
        time.sleep(POLL_S)
    time.sleep(warmup_s)


def require_whole(count: Count) -> None:
    """Every stream that ended had all its tokens and its end.

    Raises:
        RuntimeError: One had not, or none came.
    """
    if count.broken.value or not count.tokens.value:
        raise RuntimeError(f"{count.broken.value} streams broke, {count.tokens.value} tokens came")
