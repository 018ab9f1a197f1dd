"""What the `weights` of a deployment mean besides a file: shapes without weights of their own."""

from __future__ import annotations

from pathlib import Path

from festina.engine.simulated import PREFIX as SIMULATED_PREFIX

RANDOM_PREFIX = "random:"
"""A GPU's engine makes random weights of a shape: `random:llama-8b`. For profiles and benches."""

PROFILE_NAME_MAX = 127


def profile_name(weights: str) -> str:
    """The name of the profile of `weights`: of a shape or known model, or a file's without end."""
    name = shape_name(weights) or weights
    if name.endswith((".gguf", ".safetensors")):
        name = Path(name).stem
    return name[-PROFILE_NAME_MAX:]


def shape_name(weights: str) -> str:
    """The shape that `weights` name (`festina.device.physics.MODELS`); "" if it is no shape."""
    for prefix in (SIMULATED_PREFIX, RANDOM_PREFIX):
        if weights.startswith(prefix):
            return weights.removeprefix(prefix)
    return ""
