"""How long a profile of a 3B and of an 8B shape takes: the command itself, timed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .figures import Outcome

SHAPES = {"llama-3b": "profile_3b_min", "llama-8b": "profile_8b_min"}


def run(gpu: str, out: Path, command: Callable[[Sequence[str]], None] | None = None) -> Outcome:
    """Profile both shapes; each takes up to 40 minutes.

    A process each, as each measures the GPU's power without a context first.

    Args:
        gpu: "cuda:ORDINAL".
        out: Folder of profiles.
        command: Runs a command to its end; None runs it for real.

    Raises:
        RuntimeError: The command failed.
    """
    values = {}
    for shape, name in SHAPES.items():
        start = time.monotonic()
        asked = ("profile", "--device", gpu, "--model", shape, "--out", str(out), "--restart")
        (command or _festina)(asked)
        values[name] = (time.monotonic() - start) / 60.0
    return Outcome(values)


def _festina(arguments: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "festina", *arguments], check=False)
    if done.returncode != 0:
        raise RuntimeError(f"festina {' '.join(arguments)}: exit code {done.returncode}")
