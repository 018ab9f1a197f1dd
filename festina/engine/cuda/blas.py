"""cuBLAS told how many SMs there are: it sizes its grids by the device's unless it is told."""

from __future__ import annotations

import ctypes
import functools

import torch

from festina.errors import DeviceError


def limit_sms(sms: int) -> None:
    """From now on products of the calling thread are planned for `sms` SMs.

    The target belongs to the handle, which is the thread's; a graph keeps what was planned when it
    was captured. cuBLASLt has no such target: no product may go by it, so biases are added apart.

    Raises:
        DeviceError: cuBLAS refuses.
    """
    status = _library().cublasSetSmCountTarget(
        ctypes.c_void_p(torch.cuda.current_blas_handle()), ctypes.c_int(sms)
    )
    if status != 0:
        raise DeviceError(f"cublasSetSmCountTarget: status {status}", field="partition")


@functools.cache
def _library() -> ctypes.CDLL:
    """The cuBLAS that PyTorch has loaded; the loader gives that one for its name."""
    major = str(torch.version.cuda).partition(".")[0]
    try:
        return ctypes.CDLL(f"libcublas.so.{major}")
    except OSError as error:
        raise DeviceError(f"no cuBLAS: {error}", field="gpus") from error
