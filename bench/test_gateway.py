"""What HTTP costs: the same requests through the gateway and straight through festina's client.

One simulated cluster, one run, both ways in turn. The GPU is modelled, so only the difference and
the ratios say something. The gateway's own speed is told per second of CPU that its process used,
which the load of the machine changes little.

    pytest bench/test_gateway.py -s
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

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

STREAMS = 100
TOKENS = 150
APART_S = 0.02
PROMPT = "x" * 64
CONFIG = Config(
    gpus="sim:H100-SXM5-80GB:1",
    deployments=(
        DeploymentConfig(
            name="chat", weights="sim:llama-8b", slo=Slo(60_000.0, 10_000.0), pace=0.0,
            kv_tokens=65536, preload=True,
        ),
    ),
    link=LinkConfig(missed_max=60),
    scheduler=SchedulerConfig(endpoint="tcp://127.0.0.1:0"),
    agent=AgentConfig(batch_max=STREAMS, client_timeout_s=60.0),
    gateway=GatewayConfig(http="127.0.0.1:0"),
)  # fmt: skip
BODY = json.dumps(
    {"model": "chat", "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "stream": True}
)

Ask = Callable[[], Awaitable[tuple[float, int]]]
"""One stream: seconds to its first token, and how many came."""


@dataclass(frozen=True)
class Load:
    """What 100 streams amounted to."""

    ttft_ms: list[float]
    tokens: int
    taken_s: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.taken_s


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(CONFIG) as cluster:
        yield cluster


async def over_http(url: str) -> tuple[float, int]:
    """Reads bytes and counts events, so that the client costs less than the server."""
    place = urlsplit(url)
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    writer.write((head + BODY).encode())
    first_s, tokens = 0.0, 0
    while data := await reader.read(65536):
        tokens += data.count(b'"finish_reason":null')
        if tokens and not first_s:
            first_s = time.perf_counter() - start
    writer.close()
    return first_s, tokens


async def direct(client: AsyncClient) -> tuple[float, int]:
    start = time.perf_counter()
    first_s, tokens = 0.0, 0
    async for piece in client.generate("chat", prompt=PROMPT, max_tokens=TOKENS):
        first_s = first_s or time.perf_counter() - start
        tokens += len(piece.token_ids)
    return first_s, tokens


async def load(ask: Ask, apart_s: float) -> Load:
    async def later(number: int) -> tuple[float, int]:
        await asyncio.sleep(number * apart_s)
        return await ask()

    start = time.perf_counter()
    streams = await asyncio.gather(*(later(number) for number in range(STREAMS)))
    taken_s = time.perf_counter() - start
    return Load([s * 1000 for s, _ in streams], sum(tokens for _, tokens in streams), taken_s)


def both(cluster: Cluster, apart_s: float, rounds: int) -> tuple[list[Load], list[Load], float]:
    """Loads straight and over HTTP, in turn, and the CPU seconds that the gateway used."""
    gateway = psutil.Process(cluster.pids["gateway"])

    def cpu_s() -> float:
        times = gateway.cpu_times()
        return times.user + times.system

    async def run() -> tuple[list[Load], list[Load], float]:
        straight, http, used_s = [], [], 0.0
        async with AsyncClient(cluster.endpoint, link=CONFIG.link) as client:
            await load(lambda: over_http(cluster.url), 0.0)
            for _ in range(rounds):
                straight.append(await load(lambda: direct(client), apart_s))
                before_s = cpu_s()
                http.append(await load(lambda: over_http(cluster.url), apart_s))
                used_s += cpu_s() - before_s
        return straight, http, used_s

    return asyncio.run(run())


def test_time_to_first_token_while_100_streams_run(cluster: Cluster):
    """One stream every 20 ms; the last ones join while all others run."""
    straight, http, _ = both(cluster, APART_S, rounds=3)
    figures = {}
    for name, loads in (("client", straight), ("gateway", http)):
        assert all(one.tokens == STREAMS * TOKENS for one in loads)
        figures[name] = np.percentile([ms for one in loads for ms in one.ttft_ms], [50, 90])
    (direct_50, direct_90), (http_50, http_90) = figures["client"], figures["gateway"]
    print(
        f"\nTTFT at {STREAMS} streams, p50 / p90: client {direct_50:.1f} / {direct_90:.1f} ms, "
        f"gateway {http_50:.1f} / {http_90:.1f} ms, added {http_50 - direct_50:+.1f} / "
        f"{http_90 - direct_90:+.1f} ms"
    )


def test_streamed_tokens_a_second(cluster: Cluster):
    """100 streams at once."""
    straight, http, used_s = both(cluster, 0.0, rounds=3)
    client, gateway = (
        float(np.median([one.tokens_per_s for one in loads])) for loads in (straight, http)
    )
    per_core = sum(one.tokens for one in http) / used_s
    print(
        f"\nstreamed tokens/s, {STREAMS} streams: client {client:,.0f}, gateway {gateway:,.0f} "
        f"({gateway / client:.2f} of it); {per_core:,.0f} tokens per CPU second of the gateway"
    )
