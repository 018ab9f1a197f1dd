"""Two co-resident models under festina's local scheduler, and flat out: joules per token.

The same requests with the same objectives go to the same cluster of one GPU twice. Flat out means
no pacing, and clocks left to the driver. Joules are the board's, idle time included.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from festina.config import Config, DeploymentConfig
from festina.device.nvidia.nvml import Gpu
from festina.engine.weights_name import RANDOM_PREFIX
from festina.runtime.client import AsyncClient
from festina.runtime.supervisor import Cluster
from festina.types import Slo
from festina.workload.driver import Run, drive, streams_of
from festina.workload.plan import plan_requests
from festina.workload.trace import TraceRow

from .figures import Outcome

SHAPES = {"llama-8b": 1.0, "llama-3b": 2.0}
"""Requests a second of each."""
SLO = Slo(ttft_ms=2000.0, tbt_ms=150.0)
INPUT_TOKENS, OUTPUT_TOKENS = 512.0, 128.0
SIGMA = 0.6
BATCH_MAX = 128
CHUNK_TOKENS = 1024
RETRIES = 10


@dataclass(frozen=True, slots=True)
class Served:
    """One of the two runs.

    Attributes:
        energy_j: Of the board, from the first request to the last token.
        tokens: Output tokens that arrived.
        attainment: Share of requests that met both objectives.
    """

    energy_j: float
    tokens: int
    attainment: float

    @property
    def j_per_token(self) -> float:
        """Joules per output token."""
        return self.energy_j / max(self.tokens, 1)


def run(gpus: str, gpu: Gpu, seconds: float) -> Outcome:
    """Serve the same requests twice."""
    return compare(lambda config: serve(config, gpu, seconds), gpus)


def compare(serve_with: Callable[[Config], Served], gpus: str) -> Outcome:
    """The two runs as figures."""
    festina = serve_with(config_of(gpus, flat_out=False))
    flat_out = serve_with(config_of(gpus, flat_out=True))
    return Outcome(
        {
            "serving_festina_j_per_token": festina.j_per_token,
            "serving_flat_out_j_per_token": flat_out.j_per_token,
            "serving_saved_share": 1.0 - festina.j_per_token / flat_out.j_per_token,
            "serving_festina_attainment": festina.attainment,
            "serving_flat_out_attainment": flat_out.attainment,
        }
    )


def config_of(gpus: str, *, flat_out: bool) -> Config:
    """A cluster of one GPU with both models resident."""
    deployments = tuple(
        DeploymentConfig(
            name=shape,
            weights=("sim:" if gpus.startswith("sim") else RANDOM_PREFIX) + shape,
            slo=SLO,
            pace=0.0 if flat_out else 1.0,
            context_tokens=4096,
            kv_tokens=65536,
            preload=True,
        )
        for shape in SHAPES
    )
    config = Config(gpus=gpus, deployments=deployments)
    agent = msgspec.structs.replace(
        config.agent,
        set_clocks=not flat_out,
        batch_max=BATCH_MAX,
        chunk_tokens=CHUNK_TOKENS,  # a GPU's worth, for both
    )
    return msgspec.structs.replace(config, agent=agent)


def requests_of(seconds: float, seed: int = 0) -> list[TraceRow]:
    """Poisson arrivals with log-normal lengths; the same on every call."""
    rng = np.random.default_rng(seed)
    rows: list[TraceRow] = []
    for model, rate in SHAPES.items():
        at = 0.0
        while (at := at + float(rng.exponential(1.0 / rate))) < seconds:
            lengths = (
                int(np.clip(rng.lognormal(np.log(median), SIGMA), 4, 2048))
                for median in (INPUT_TOKENS, OUTPUT_TOKENS)
            )
            rows.append(TraceRow(at, model, *lengths))
    return sorted(rows, key=lambda row: row.t_s)


def serve(config: Config, gpu: Gpu, seconds: float) -> Served:
    """Serve the requests on a cluster of its own."""
    with Cluster(config) as cluster:
        start_j = gpu.energy_j()
        found = asyncio.run(_drive(config, cluster.endpoint, requests_of(seconds)))
        energy_j = gpu.energy_j() - start_j
    outcomes = found.outcomes()
    tokens = sum(one.usage.output_tokens for one in outcomes if one.usage is not None)
    return Served(energy_j, tokens, sum(one.attained for one in outcomes) / len(outcomes))


async def _drive(config: Config, endpoint: str, rows: list[TraceRow]) -> Run:
    async with AsyncClient(endpoint, link=config.link, identity=config.security.identity) as client:
        deployments = {info.model: info for info in (await client.cluster()).deployments}
        requests = plan_requests(rows, deployments, np.random.default_rng(1))
        first_s = requests[0].due_s
        shifted = [dataclasses.replace(one, due_s=one.due_s - first_s) for one in requests]
        return await drive(shifted, streams_of(client, RETRIES), time.monotonic, lambda _: None)
