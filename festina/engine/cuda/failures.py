"""What PyTorch and our kernels report of a device, as festina's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from festina import _core
from festina.errors import DeviceError, DeviceLostError, EngineError, EngineLostError, FestinaError

_MEMORY = ("out of memory", "MemoryAllocation", "_STATUS_ALLOC_FAILED")
_DEVICE = ("CUDA error", "CUDA driver error", "CUBLAS_STATUS", "CUDNN_STATUS", "cuDNN error")
"""What the texts of PyTorch's plain `RuntimeError` have in common where a device is behind them."""


@contextmanager
def typed(
    field: str = "model",
    memory: type[FestinaError] = EngineError,
    lost: type[FestinaError] = EngineLostError,
) -> Iterator[None]:
    """Raise what the device reports as an error of festina's.

    After a failed kernel all that its context is asked for fails too, so the engine is lost: only
    a new process can go on. Errors that tell of no device pass: they are mistakes of ours.

    Args:
        field: What the caller had asked for.
        memory: Raised where memory ran out.
        lost: Raised where anything else failed.
    """
    try:
        yield
    except DeviceLostError as error:  # of our own calls to the driver
        if issubclass(lost, DeviceLostError):
            raise
        raise lost(f"the device failed: {error}", field=field) from error
    except RuntimeError as error:
        kind = _kind(error)
        if kind == "memory":
            raise memory(f"the device has no memory left: {error}", field=field) from error
        if kind == "lost":
            raise lost(f"the device failed: {error}", field=field) from error
        raise


@contextmanager
def typed_opening() -> Iterator[None]:
    """As `typed`, for the start of an engine: there is none yet that could be lost.

    Raises:
        DeviceLostError: The device failed.
        DeviceError: Memory ran out.
    """
    with typed("gpus", DeviceError, DeviceLostError):
        yield


def _kind(error: RuntimeError) -> str:
    """Whether "memory" ran out, or the device is "lost"; "" where it has no part in this."""
    text = str(error)
    ours = isinstance(error, torch.AcceleratorError | _core.CudaKernelError)
    if isinstance(error, torch.OutOfMemoryError):
        return "memory"
    if not ours and not any(sign in text for sign in _DEVICE):
        return ""
    return "memory" if any(sign in text for sign in _MEMORY) else "lost"
