"""`festina compare-consolidation`: the same requests with the consolidator off, and on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from msgspec.structs import replace
from rich.console import Console

from festina.cli.options import ConfigFile, Gpus, Json, SetFlags, settings
from festina.errors import BadRequestError
from festina.report.comparison import comparison_lines, comparison_table
from festina.report.live import LiveRun
from festina.runtime.gpu_spec import parse_gpus
from festina.runtime.supervisor import interruptible
from festina.simulator.workloads import build_workload
from festina.workload.comparison import Scale, Side, cluster_config, planned_requests, run_side


def command(
    workload: Annotated[
        str, typer.Argument(help="A workload of `festina simulate`, or a trace file.")
    ] = "tenant-diurnal",
    config: ConfigFile = None,
    sets: SetFlags = None,
    gpus: Gpus = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="What is compared with off: festina, paper or both; repeatable."),
    ] = None,
    traces: Annotated[Path | None, typer.Option(help="Folder with recorded traces.")] = None,
    load: Annotated[float, typer.Option(min=0.001, help="Multiplies the rates.")] = 0.1,
    slo: Annotated[str, typer.Option(help="Objectives: strict, relaxed or loose.")] = "relaxed",
    speedup: Annotated[
        float,
        typer.Option(min=0.01, help="Divides all times: the workload's and the consolidator's."),
    ] = 4.0,
    scale_tokens: Annotated[
        float, typer.Option(min=0.001, help="Multiplies the lengths: tokens are not sped up.")
    ] = 0.1,
    duration: Annotated[float, typer.Option(min=1, help="Seconds of the workload to keep.")] = 1e9,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts.")] = 0,
    trace_out: Annotated[
        Path | None, typer.Option(help="Write what the last run's consolidator did, for Perfetto.")
    ] = None,
    json: Json = False,
) -> None:
    """Serve WORKLOAD on a cluster of its own, once with the consolidator off and once with it on.

    Requests, times and prompts are the same; joules are metered over the same time. Exits with 1 if
    a request ended not exactly once, or a token was lost, duplicated or reordered.
    """
    found = settings(config, sets, gpus=gpus or "sim:8").config
    if trace_out is not None:
        consolidator = replace(found.consolidator, trace=str(trace_out))
        found = replace(found, consolidator=consolidator)
    count = len(parse_gpus(found.gpus))
    built = build_workload(workload, traces=traces, gpus=count, slo=slo, load=load)
    if (built.follows >= 0).any():
        raise BadRequestError(
            "its requests wait for one another", field="workload", expected="an open-loop workload"
        )
    scale = Scale(speedup=speedup, tokens=scale_tokens)
    requests = [
        one for one in planned_requests(built, scale, seed) if one.due_s < duration / speedup
    ]
    if not requests:
        raise BadRequestError("no request is left", field="--duration", expected="a longer time")
    console = Console(stderr=True, quiet=json)
    sides: list[Side] = []
    with interruptible():
        for name in ("off", *(policy or ["festina"])):
            console.print(f"{name}: {len(requests)} requests in {requests[-1].due_s:.0f} s")
            with LiveRun(console, len(requests), {}) as live:
                side_config = cluster_config(built, scale, found, name)
                sides.append(run_side(side_config, requests, live.observe))
    if json:
        print(msgspec.json.format(msgspec.json.encode(sides)).decode())
    else:
        out = Console(highlight=False)
        out.print(comparison_table(sides))
        for line in comparison_lines(sides):
            out.print(line)
    if not all(side.integrity.holds for side in sides):
        raise typer.Exit(1)
