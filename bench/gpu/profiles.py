"""How long a profile of a 3B and of an 8B shape takes: the command itself, timed."""

from __future__ import annotations

import time
from pathlib import Path

from festina.cli.profile_gpu import Ask, write_gpu_profile
from festina.config import Config

from .figures import Outcome

SHAPES = {"llama-3b": "profile_3b_min", "llama-8b": "profile_8b_min"}


def run(gpu: str, out: Path) -> Outcome:
    """Profile both shapes; each takes up to 40 minutes."""
    values = {}
    for shape, name in SHAPES.items():
        start = time.monotonic()
        write_gpu_profile(Config(), Ask(gpu, shape, out, restart=True))
        values[name] = (time.monotonic() - start) / 60.0
    return Outcome(values)
