"""Moving requests: what the client sees, by context length; and who goes where, for a thousand.

Two CPU agents with SmolLM2 on this machine; each request moves once, early in its output.
The pause is the longest gap between tokens of a request that moves, beside the longest and the
median gap of the same request left alone. Joules are modelled, as all of a CPU agent are.

Run: .venv/bin/pytest bench/test_migration.py -s
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

import festina
from festina.config import ConsolidatorConfig, DeploymentConfig
from festina.control.migration import assign
from festina.engine import models
from festina.engine.architecture import read_config
from festina.engine.base import BLOCK_TOKENS
from festina.engine.model_file import open_weights
from festina.errors import FestinaError
from festina.types import Sampling, Slo

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from live_cluster import LINK, sim_config
from movers import Mover

REQUESTS, TARGETS = 1000, 20
LENGTHS = (64, 256, 512, 1024)
TIMES = 3
OUTPUT = 96
ORDERED_AT = 8


@pytest.mark.parametrize("spread", ["alike", "apart"])
def test_assignment_of_a_thousand_requests(benchmark, spread: str):
    """Bar: 50 ms. `apart`: every pair of hosts has a bandwidth of its own."""
    rng = np.random.default_rng(1)
    sizes = list(rng.lognormal(17.0, 1.0, REQUESTS))
    shape = (1, TARGETS) if spread == "alike" else (REQUESTS, TARGETS)
    speeds = np.broadcast_to(rng.uniform(1e9, 2e10, shape), (REQUESTS, TARGETS)).copy()
    room = [REQUESTS // TARGETS + 5] * TARGETS
    where = benchmark.pedantic(assign, args=(sizes, speeds, room), rounds=5, warmup_rounds=1)
    assert None not in where


@pytest.fixture(scope="module")
def cluster():
    try:
        weights = str(models.pull("smollm2-135m"))
    except FestinaError as error:
        pytest.skip(f"no weights: {error}")
    chat = DeploymentConfig(
        name="chat",
        weights=weights,
        slo=Slo(60_000.0, 1000.0),
        context_tokens=2048,
        kv_tokens=8192,
        pace=0.0,
        preload=True,
    )
    off = ConsolidatorConfig(policy="off")
    config = replace(sim_config(), gpus="cpu:2", deployments=(chat,), consolidator=off)
    with festina.Cluster(config) as running:
        yield running


async def one(endpoint: str, mover: Mover, length: int, method: str):
    """One request, and the order to move it if a method is given."""
    agents = mover.agents()
    async with festina.AsyncClient(endpoint, link=LINK) as client:
        stream = client.generate(
            "chat",
            token_ids=[1 + n % 1000 for n in range(length)],
            max_tokens=OUTPUT,
            sampling=Sampling(ignore_eos=True),
        )
        async for piece in stream:
            if method and piece.index == ORDERED_AT:
                await asyncio.to_thread(mover.order, (), method, agents)
        return await stream.completion()


@pytest.mark.parametrize("length", LENGTHS)
def test_a_move_by_context_length(cluster, length: int):
    mover = Mover(cluster)
    lines = []
    for method in ("", "copy", "recompute"):
        began = time.perf_counter()
        runs = [asyncio.run(one(cluster.endpoint, mover, length, method)) for _ in range(TIMES)]
        total_s = (time.perf_counter() - began) / TIMES
        longest_ms = statistics.median(max(run.gaps_ms) for run in runs)
        gap_ms = statistics.median(gap for run in runs for gap in run.gaps_ms)
        energy_j = statistics.median(run.usage.energy_j for run in runs)
        moves = sum(run.usage.moves for run in runs)
        lines.append(
            f"{length:5} tokens  {method or 'stays':9}  moved {moves}/{TIMES}  "
            f"gap {gap_ms:6.1f} ms  longest {longest_ms:6.1f} ms  request {total_s:5.2f} s  "
            f"{energy_j:6.2f} J modelled"
        )
    mover.close()
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
    sys.stdout.write(f"        KV cache {kv_bytes(length + ORDERED_AT) / 2**20:.1f} MiB\n")


def kv_bytes(tokens: int) -> int:
    """What a copy moves: SmolLM2's keys and values, whole blocks."""
    per_token = read_config(open_weights(models.resolve("smollm2-135m"))).kv_bytes_per_token
    return -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS * per_token
