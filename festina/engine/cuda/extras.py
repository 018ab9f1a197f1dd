"""What the GPU engine needs beyond the base install, and typed errors where it is missing."""

from __future__ import annotations

import importlib.util

from festina import _core
from festina.errors import UnsupportedEngineError


def require_torch() -> None:
    """Whether PyTorch is installed; its import takes seconds, so it is not imported here.

    Raises:
        UnsupportedEngineError: It is not.
    """
    if importlib.util.find_spec("torch") is None:
        raise UnsupportedEngineError(
            "models run on GPUs by PyTorch, which is not installed",
            field="gpus",
            expected="pip install 'festina[gpu]'",
        )


def require_kernels() -> None:
    """Whether the native module was built with the CUDA parts.

    Raises:
        UnsupportedEngineError: It was not.
    """
    if not hasattr(_core, "paged_attention_device"):
        raise UnsupportedEngineError(
            "festina was built without its CUDA kernels",
            field="gpus",
            expected="an install where nvcc is found",
        )
