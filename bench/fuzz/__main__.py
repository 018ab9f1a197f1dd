"""Damaged input for everything that reads what another process, client or tool wrote.

    python -m bench.fuzz --frames 10000000 --jobs 2
    python -m bench.fuzz --replay http:1:42

Inputs are valid ones, damaged: bits flipped, cut, doubled, spliced, lengths and types changed. Each
target runs in a process of its own. Leaves with 1 if an input raised anything but a `FestinaError`,
took more than 5 s or killed its process; the round that did it is told and can be replayed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from bench.fuzz.part import TARGETS, Part, run_part
from bench.fuzz.target import ROUND


def run_child(name: str, seed: int, first: int, rounds: int) -> Part:
    """One child; a part of no inputs with a crash if it dies."""
    with tempfile.NamedTemporaryFile() as progress:
        words = [name, str(seed), str(first), str(rounds), progress.name]
        child = subprocess.run(
            [sys.executable, "-m", "bench.fuzz.part", *words], capture_output=True, text=True
        )
        if child.returncode == 0:
            return msgspec.json.decode(child.stdout.splitlines()[-1], type=Part)
        died = f"left with {child.returncode}\n{child.stderr[-3000:]}"
        number = max(first, int.from_bytes(Path(progress.name).read_bytes()))
        hang = "Timeout (" in child.stderr
        return Part(name, (number - first) * ROUND, 0, 0, 0.0, number, died, hang)


def fuzz(inputs: int, jobs: int, seed: int, names: list[str]) -> list[Part]:
    """All targets, each in `jobs` parts, the longest first."""
    share = sum(TARGETS[name][1] for name in names)
    tasks = []
    for name in names:
        each = -int(-inputs * TARGETS[name][1] / share // (ROUND * jobs))
        tasks += [(name, seed, part * each, each) for part in range(jobs)]
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda task: run_child(*task), tasks))


def table(parts: list[Part], names: list[str]) -> str:
    """Markdown: a row for each target."""
    lines = [
        "| target | inputs | accepted | refused | crashes | hangs | inputs/s per process |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in [*names, "all"]:
        mine = [part for part in parts if name in (part.target, "all")]
        figures = [sum(getattr(p, f) for p in mine) for f in ("inputs", "accepted", "refused")]
        hangs = sum(part.hang for part in mine)
        crashes = sum(bool(part.crash) for part in mine) - hangs
        rate = figures[0] / max(sum(part.seconds for part in mine), 1e-9)
        cells = [*(f"{figure:,}" for figure in figures), crashes, hangs, f"{rate:,.0f}"]
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="bench.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=10_000_000, help="inputs, all targets")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--replay", metavar="TARGET:SEED:ROUND")
    given = parser.parse_args()
    if given.replay:
        name, seed, number = given.replay.split(":")
        parts = [run_part(name, int(seed), int(number), 1, None)]
        given.seed, given.targets = int(seed), [name]
    else:
        parts = fuzz(given.frames, given.jobs, given.seed, given.targets)
    print(table(parts, given.targets))
    failed = [part for part in parts if part.crash]
    for part in failed:
        print(f"\n{part.target}, input {part.inputs}: {part.crash}")
        print(f"replay: python -m bench.fuzz --replay {part.target}:{given.seed}:{part.round}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
