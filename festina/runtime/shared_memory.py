"""Memory that two processes of one host share for a move, and that no death can leave behind.

It has no name in any file system: its source holds it by a descriptor, and others open it through
the source's folder in /proc. When both are gone, so is the memory.
"""

from __future__ import annotations

import mmap
import os
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from festina.errors import EngineError

_NAME = "festina-kv"
_PATH = re.compile(r"/proc/[1-9][0-9]{0,9}/fd/[0-9]{1,9}")


def host_id() -> str:
    """Names this host, as far as processes can see each other in /proc; "" where there is none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}/{os.getuid()}"
    except OSError:
        return ""


class KvRing:
    """The source's side: places for `window` blocks. Made by one thread, used by another.

    Args:
        window: Blocks that it has room for.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._descriptor = os.memfd_create(_NAME, os.MFD_CLOEXEC)
        self._map: mmap.mmap | None = None
        self._block_bytes = 0

    @property
    def path(self) -> str:
        """Where others find it."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def write(self, first: int, data: NDArray[np.uint8]) -> None:
        """Put blocks into their places.

        Args:
            first: Index of the first of them in the request.
            data: uint8 (blocks, bytes per block), at most `window` blocks, always of one size.
        """
        if self._map is None:
            self._block_bytes = data.shape[1]
            os.ftruncate(self._descriptor, self._window * self._block_bytes)
            self._map = mmap.mmap(self._descriptor, self._window * self._block_bytes)
        ring = np.frombuffer(self._map, np.uint8).reshape(self._window, self._block_bytes)
        ring[np.arange(first, first + len(data)) % self._window] = data

    def close(self) -> None:
        """Give it back; whoever has opened it keeps it until they are done."""
        if self._map is not None:
            self._map.close()
        os.close(self._descriptor)


class KvRingView:
    """The target's side.

    Args:
        path: From `KvBlocks.memory`.
        window: Blocks that it has room for.
        block_bytes: Size of a block.

    Raises:
        EngineError: It is no such memory, is gone, or is too small.
    """

    def __init__(self, path: str, window: int, block_bytes: int) -> None:
        self._window = window
        self._block_bytes = block_bytes
        descriptor = _open(path)
        try:
            size = os.fstat(descriptor).st_size
            if size < window * block_bytes:
                raise EngineError(
                    f"{size} bytes of shared memory",
                    field="memory",
                    expected=f"{window} blocks of {block_bytes}",
                )
            self._map = mmap.mmap(descriptor, window * block_bytes, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)

    def read(self, first: int, count: int) -> NDArray[np.uint8]:
        """uint8 (count, bytes per block), a copy of blocks in their places."""
        ring = np.frombuffer(self._map, np.uint8).reshape(self._window, self._block_bytes)
        return ring[np.arange(first, first + count) % self._window]

    def close(self) -> None:
        """Give it back."""
        self._map.close()


def _open(path: str) -> int:
    """The path comes from another process: nothing but memory of this kind is opened."""
    wrong = EngineError(f"{path!r} is no shared memory", field="memory", expected=_NAME)
    if _PATH.fullmatch(path) is None:
        raise wrong
    with suppress(OSError):
        if Path(path).readlink().name.startswith(f"memfd:{_NAME}"):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    raise wrong
