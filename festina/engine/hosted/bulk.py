"""Shared memory for the contents of KV blocks: too large for frames, and no reason to copy twice.

One anonymous file (`memfd`) for both processes. It has a size only while data is in it, so that an
idle pair holds no memory.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
from numpy.typing import NDArray


def create() -> int:
    """A new one, empty; the caller closes the descriptor, and memory goes with the last one."""
    return os.memfd_create("festina-kv-blocks", os.MFD_CLOEXEC)


def write(fd: int, data: NDArray[np.uint8]) -> None:
    """Put an array into it, in C order."""
    os.ftruncate(fd, data.nbytes)
    if data.nbytes:
        with mmap.mmap(fd, data.nbytes) as shared:
            np.frombuffer(shared, np.uint8)[:] = data.ravel()


def take(fd: int, rows: int, row_bytes: int) -> NDArray[np.uint8]:
    """Copy uint8 (rows, row_bytes) out of it, and give the memory back.

    Raises:
        ValueError: There is less in it.
    """
    data = np.empty((rows, row_bytes), np.uint8)
    if data.nbytes:
        with mmap.mmap(fd, data.nbytes, prot=mmap.PROT_READ) as shared:
            data.ravel()[:] = np.frombuffer(shared, np.uint8)
    os.ftruncate(fd, 0)
    return data
