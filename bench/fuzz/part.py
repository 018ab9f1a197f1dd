"""A child that runs rounds of one target. It dies by what kills it; its parent tells."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec
from bench.fuzz import frames, gateway, logic, readers
from bench.fuzz.target import Tally, Target, run_round

HANG_S = 5.0
NATIVE_HANG_S = 30.0
"""For code that does not come back to Python: no signal handler runs meanwhile."""
FIRST_LOOK_S = 30.0
"""The corpus takes its time, and is no input."""

TARGETS: dict[str, tuple[Callable[[Path], Target], float]] = {
    "wire": (frames.wire, 0.40),
    "hosted": (frames.hosted, 0.17),
    "blocks": (frames.blocks, 0.20),
    "keys": (frames.keys, 0.01),
    "scheduler": (logic.scheduler, 0.005),
    "agent": (logic.agent, 0.005),
    "client": (logic.client, 0.005),
    "bodies": (gateway.bodies, 0.10),
    "http": (gateway.http, 0.10),
    "profile": (readers.profile, 0.0005),
    "trace": (readers.trace, 0.001),
    "config": (readers.config, 0.0005),
    "gguf": (readers.gguf, 0.0005),
}
"""Name → what makes it, share of the inputs."""


class HangError(Exception):
    """An input took longer than `HANG_S`."""


class Part(msgspec.Struct, frozen=True):
    """What a child found; `crash` is a traceback."""

    target: str
    inputs: int
    accepted: int
    refused: int
    seconds: float
    round: int
    crash: str = ""
    hang: bool = False


def run_part(name: str, seed: int, first: int, rounds: int, progress: int | None) -> Part:
    """Rounds from `first`; the number of the one that runs is kept in the file `progress`."""
    logging.disable(logging.CRITICAL)
    tally = Tally()
    _watch(tally)
    begun = time.perf_counter()
    crash, hang, number = "", False, first
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        target = TARGETS[name][0](Path(folder))
        try:
            for number in range(first, first + rounds):
                if progress is not None:
                    os.pwrite(progress, number.to_bytes(8), 0)
                run_round(target, seed, number, tally)
        except HangError:
            crash, hang = traceback.format_exc(), True
        except Exception:  # noqa: BLE001  whatever it is, it is what is looked for
            crash = traceback.format_exc()
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.cancel_dump_traceback_later()
    seconds = time.perf_counter() - begun
    return Part(name, tally.inputs, tally.accepted, tally.refused, seconds, number, crash, hang)


def _watch(tally: Tally) -> None:
    """Looks every `HANG_S` whether an input has ended since."""
    seen = [-1]

    def look(*_: object) -> None:
        faulthandler.dump_traceback_later(NATIVE_HANG_S, exit=True)
        if tally.inputs == seen[0]:
            raise HangError(f"input {tally.inputs} takes more than {HANG_S:g} s")
        seen[0] = tally.inputs

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, FIRST_LOOK_S, HANG_S)
    faulthandler.dump_traceback_later(2 * NATIVE_HANG_S, exit=True)


def main(arguments: list[str]) -> None:
    """`NAME SEED FIRST ROUNDS PROGRESS`; prints the part as JSON."""
    name, *numbers, progress = arguments
    seed, first, rounds = map(int, numbers)
    descriptor = os.open(progress, os.O_RDWR | os.O_CREAT)
    print(msgspec.json.encode(run_part(name, seed, first, rounds, descriptor)).decode())
    os.close(descriptor)


if __name__ == "__main__":
    main(sys.argv[1:])
