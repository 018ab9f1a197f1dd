"""What the CUDA driver refuses, as festina's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from festina import _core
from festina.errors import (
    DeviceError,
    DeviceLostError,
    DeviceUnsupportedError,
    StreamCapturedError,
)

_TYPES: dict[str, type[DeviceError]] = {
    "too_old": DeviceUnsupportedError,
    "symbol_absent": DeviceUnsupportedError,
    "capturing": StreamCapturedError,
    "device_lost": DeviceLostError,
}


@contextmanager
def typed(field: str) -> Iterator[None]:
    """Raise what the CUDA driver refuses as a `DeviceError`, with the name of the call.

    Args:
        field: What the caller had asked for.

    Raises:
        DeviceUnsupportedError: A driver that is too old or has no such call.
        StreamCapturedError: The stream is being captured.
        DeviceLostError: The context is unusable from now on.
        DeviceError: Anything else; no driver, say.
    """
    try:
        yield
    except _core.CudaDriverError as error:
        raise _TYPES.get(error.fault, DeviceError)(str(error), field=field) from error
