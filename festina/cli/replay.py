"""`festina replay`: load a running cluster with a trace, open loop, and judge the outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from festina.cli.options import ConfigFile, EndpointOption, Json, SetFlags, settings
from festina.config import Config
from festina.errors import BadRequestError
from festina.report.live import LiveRun
from festina.report.outcome import outcome_json, print_outcome
from festina.runtime.client import AsyncClient
from festina.workload.driver import PlannedRequest, Run, drive, streams_of
from festina.workload.plan import choose_models, plan_requests
from festina.workload.trace import TraceRow, read_trace, shape_trace


def command(
    trace: Annotated[Path, typer.Argument(help="CSV, plain or Azure's, may be gzipped.")],
    config: ConfigFile = None,
    sets: SetFlags = None,
    endpoint: EndpointOption = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=WEIGHT] | OLD:NEW",
            help="Deployment for all rows (several: drawn by weight), or a name to replace.",
        ),
    ] = None,
    duration: Annotated[float, typer.Option(min=0.001, help="Seconds of the trace to keep.")] = 1e9,
    speedup: Annotated[float, typer.Option(min=1e-6, help="Divides the times.")] = 1.0,
    scale_tokens: Annotated[float, typer.Option(min=1e-6, help="Multiplies the lengths.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts and drawn deployments.")] = 0,
    retries: Annotated[
        int, typer.Option(min=0, help="Tries after a refusal for overload; TTFT goes on counting.")
    ] = 100,
    json: Json = False,
) -> None:
    """Send the requests of TRACE when they are due, whatever became of earlier ones.

    Prompts are random tokens of the length asked for; outputs have exactly the length asked for.
    Exits with 1 if a request ended not exactly once, or a token was lost, duplicated or reordered.
    """
    found = settings(config, sets, endpoint=endpoint).config
    rows = read_trace(trace)
    rng = np.random.default_rng(seed)
    rows = choose_models(rows, model or [], rng)
    shaped = shape_trace(rows, duration_s=duration, speedup=speedup, scale_tokens=scale_tokens)
    if not shaped:
        raise BadRequestError("no request is left", field="--duration", expected="a longer time")
    run = asyncio.run(_replay(found, shaped, rng, retries, Console(stderr=True, quiet=json)))
    if json:
        print(outcome_json(run))
    else:
        print_outcome(run, Console(highlight=False))
    if not run.integrity().holds:
        raise typer.Exit(1)


async def _replay(
    config: Config,
    rows: Sequence[TraceRow],
    rng: np.random.Generator,
    retries: int,
    console: Console,
) -> Run:
    async with AsyncClient(
        config.scheduler.endpoint,
        standby_endpoint=config.scheduler.standby_endpoint,
        link=config.link,
        identity=config.security.identity,
    ) as client:
        cluster = await client.cluster()
        deployments = {info.model: info for info in cluster.deployments}
        requests = plan_requests(rows, deployments, rng)
        _tell_cuts(rows, requests, console)
        with LiveRun(console, len(requests), {}) as live:
            return await drive(requests, streams_of(client, retries), time.monotonic, live.observe)


def _tell_cuts(
    rows: Sequence[TraceRow], requests: Sequence[PlannedRequest], console: Console
) -> None:
    cut = sum(
        len(request.token_ids) < row.input_tokens or request.max_tokens < row.output_tokens
        for row, request in zip(rows, requests, strict=True)
    )
    if cut:
        console.print(f"{cut} of {len(rows)} requests were cut to their deployment's context")
