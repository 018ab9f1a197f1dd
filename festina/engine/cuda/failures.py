"""What PyTorch and our kernels report of a device, as festina's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from festina import _core
from festina.errors import EngineError, EngineLostError


@contextmanager
def typed() -> Iterator[None]:
    """Raise what the device reports as an `EngineError`.

    After a failed kernel all that its context is asked for fails too, so the engine is lost: only
    a new process can go on.

    Raises:
        EngineError: Memory ran out.
        EngineLostError: Anything else.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(f"the device has no memory left: {error}", field="model") from error
    except (torch.AcceleratorError, _core.CudaKernelError) as error:
        raise EngineLostError(f"the device failed: {error}", field="model") from error
