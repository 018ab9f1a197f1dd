"""`festina demo`: serve two deployments of a real model here, load them in bursts, judge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from festina.cli.demo_load import WEIGHTS, demo_config, featured, plan_demo
from festina.cli.models import cache_dir, fetch
from festina.cli.options import ConfigFile, Json, SetFlags, settings
from festina.config import Config
from festina.report.live import LiveRun
from festina.report.outcome import outcome_json, print_outcome
from festina.runtime.client import AsyncClient
from festina.runtime.supervisor import Cluster
from festina.workload.driver import PlannedRequest, Run, drive, streams_of

SIMULATED = "sim"
RETRIES = 100
"""Of a request that is refused for overload; its TTFT goes on counting."""
SIMULATED_WEIGHTS = "sim:smollm2-135m"


def command(
    config: ConfigFile = None,
    sets: SetFlags = None,
    gpus: Annotated[str, typer.Option("--gpus", help="cpu:N or sim:N.")] = "cpu:2",
    bursts: Annotated[int, typer.Option(min=1, help="Bursts of 10 requests.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals and lengths.")] = 0,
    json: Json = False,
) -> None:
    """Two deployments of the same weights with different objectives, 40 requests in bursts.

    Exits with 1 if a request ended not exactly once, or a token was lost, duplicated or reordered.
    """
    console = Console(stderr=json, highlight=False)
    found = settings(config, sets, gpus=gpus).config
    simulated = gpus.startswith(SIMULATED)
    if not simulated:
        fetch(WEIGHTS, cache_dir(found), console)
    weights = SIMULATED_WEIGHTS if simulated else WEIGHTS
    found = demo_config(found, weights)
    _introduce(found, console)
    start_s = time.monotonic()
    with Cluster(found) as cluster:
        console.print(f"ready at {cluster.endpoint} after {time.monotonic() - start_s:.1f} s\n")
        slos = {deployment.name: deployment.slo for deployment in found.deployments}
        requests = plan_demo(np.random.default_rng(seed), slos, bursts=bursts)
        run = asyncio.run(_drive(found, cluster.endpoint, requests, console))
    if json:
        print(outcome_json(run))
    else:
        _conclude(found, run, console)
    if not run.integrity().holds:
        raise typer.Exit(1)


def _introduce(config: Config, console: Console) -> None:
    console.print(f"festina demo on {config.gpus}: two deployments of the same weights")
    for deployment in config.deployments:
        slo = deployment.slo
        console.print(
            f"  {deployment.name:<12} {deployment.weights}, TTFT ≤ {slo.ttft_ms / 1e3:g} s, "
            f"TBT ≤ {slo.tbt_ms:g} ms, pace {deployment.pace:g}"
        )


async def _drive(
    config: Config, endpoint: str, requests: Sequence[PlannedRequest], console: Console
) -> Run:
    shown = {
        id(requests[index]): f"{requests[index].model}: {requests[index].turns[0].content}"
        for index in featured(requests)
    }
    async with AsyncClient(endpoint, link=config.link, identity=config.security.identity) as client:
        with LiveRun(console, len(requests), shown) as live:
            return await drive(requests, streams_of(client, RETRIES), time.monotonic, live.observe)


def _conclude(config: Config, run: Run, console: Console) -> None:
    console.print()
    print_outcome(run, console)
    if config.gpus.startswith(SIMULATED):
        console.print("These GPUs are simulated: latencies and joules are modelled.")
    else:
        console.print(
            "Latencies are measured. Joules are modelled: this is a CPU, see cpu_power in "
            "`festina config --table`."
        )
    console.print("The cluster has stopped; no process is left.")
