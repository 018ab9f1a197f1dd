"""The targets of `bench.fuzz` under Atheris: what reaches new code is kept and damaged further.

    python -m bench.fuzz.guided http --runs 1000000

Needs the extra `fuzz` (Atheris, which brings libFuzzer). Half of the inputs are damaged as
`bench.fuzz` does it, half as libFuzzer does. It begins with a minute of instrumenting; what it
prints is libFuzzer's. Inputs that reached new code stay in `build/fuzz/TARGET/kept` for the next
run; one that crashes or takes longer than 5 s is kept beside it and ends the command with an error.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import atheris
from bench.fuzz.part import HANG_S, TARGETS
from bench.fuzz.target import ROUND, Target

from festina.errors import FestinaError

LONGEST = 1 << 16


def guided(target: Target) -> Callable[[bytes], None]:
    """Takes one input; every `ROUND` of them share a state, as in a round."""
    taken = 0
    take = target.start()

    def one(data: bytes) -> None:
        nonlocal taken, take
        if taken == ROUND:
            taken, take = 0, target.start()
        taken += 1
        try:
            take(data)
        except FestinaError:
            return

    return one


def mutator(target: Target) -> Callable[[bytes, int, int], bytes]:
    """Damage by the target or by libFuzzer."""

    def damage(data: bytes, longest: int, seed: int) -> bytes:
        rng = Random(seed)
        if rng.getrandbits(1):
            return target.damage(data, target.corpus, rng, 0)[:longest]
        return bytes(atheris.Mutate(data, longest))

    return damage


def main() -> None:
    """The command; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(prog="bench.fuzz.guided", description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--runs", type=int, default=100_000, help="inputs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    folder = given.folder / given.target
    kept, scratch = folder / "kept", folder / "scratch"
    kept.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(exist_ok=True)
    target = TARGETS[given.target][0](scratch)
    for data in target.corpus:
        (kept / hashlib.sha256(data).hexdigest()).write_bytes(data)
    options = {
        "runs": given.runs, "seed": given.seed, "max_len": LONGEST, "timeout": int(HANG_S),
        "artifact_prefix": f"{folder}/", "print_final_stats": 1,
    }  # fmt: skip
    words = [f"-{name}={value}" for name, value in options.items()]
    atheris.instrument_all()  # not by imports: an editable install has a loader of its own
    atheris.Setup([sys.argv[0], *words, str(kept)], guided(target), custom_mutator=mutator(target))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
