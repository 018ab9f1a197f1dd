"""`festina simulate-faults`: do the promises hold when processes crash and messages get lost?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from festina.cli.options import Json
from festina.errors import SimulationError
from festina.report.faults import faults_table
from festina.simulator.faults.cluster import SeedResult, simulate_seed
from festina.simulator.faults.profiles import Profiles
from festina.simulator.faults.report import from_json, report_of, to_json

_PART = 10
"""Seeds that a process takes at a time."""


def command(
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    first: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    again: Annotated[
        int, typer.Option(min=0, help="How many to run a second time, in another process.")
    ] = 5,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the seeds.")] = 1,
    json: Json = False,
) -> None:
    """Crash, cut, delay, repeat, reorder and lose in virtual time; check DESIGN's promises.

    Each seed is a cluster of three simulated GPUs with three clients. Checked are promises 1 (every
    request ends once, its tokens right, in order and complete), 2 (a new scheduler knows all within
    a heartbeat), 4 (everything has a bound) and 6 (same seed, same run). Exits with 1 if one is
    broken, after one line per broken promise and the command that replays its seed.
    """
    console = Console(stderr=True, highlight=False)
    numbers = range(first, first + seeds)
    simulated = _simulate(numbers) if jobs == 1 else _share(numbers, jobs)
    shown = track(simulated, "simulating", seeds, console=console, transient=True, disable=json)
    results = list(shown)
    repeated = _elsewhere(first, min(again, seeds))
    report = report_of(results, repeated)
    if json:
        print(to_json(report).decode())
    else:
        for line in report.lines():
            print(line)
        Console(highlight=False).print(faults_table(report))
    if report.broken:
        raise typer.Exit(1)


def _simulate(seeds: Iterable[int]) -> Iterator[SeedResult]:
    profiles = Profiles.load()
    for seed in seeds:
        yield simulate_seed(seed, profiles)


def _share(seeds: range, jobs: int) -> Iterator[SeedResult]:
    """The same in several processes, in the order of seeds."""
    parts = [seeds[start : start + _PART] for start in range(0, len(seeds), _PART)]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for results in pool.map(_simulate_part, parts):
            yield from results


def _simulate_part(seeds: range) -> list[SeedResult]:
    return list(_simulate(seeds))


def _elsewhere(first: int, seeds: int) -> tuple[SeedResult, ...]:
    """The results of the same seeds in a process that hashes strings in another order.

    Raises:
        SimulationError: It did not answer.
    """
    if not seeds:
        return ()
    words = ["simulate-faults", "--first", str(first), "--seeds", str(seeds), "--again", "0"]
    hashing = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    child = subprocess.run(  # noqa: S603 - this very program
        [sys.executable, "-m", "festina", *words, "--json"],
        env={**os.environ, "PYTHONHASHSEED": hashing},
        stdout=subprocess.PIPE,
        check=False,
    )
    if child.returncode not in (0, 1):
        raise SimulationError(f"the second process ended with {child.returncode}", field="--again")
    return from_json(child.stdout).results
