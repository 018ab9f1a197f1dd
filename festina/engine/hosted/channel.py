"""Frames over one end of a socket pair, with descriptors and deadlines."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from festina.engine.hosted import frames

READ_BYTES = 256 * 1024
FDS_MAX = 4


class Channel:
    """One end. At most one frame is under way in either direction. For one thread, but `close`.

    Args:
        end: A connected stream socket, which the channel owns.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()

    def send(
        self,
        frame: frames.Request | frames.Reply,
        fds: Sequence[int] = (),
        within_s: float | None = None,
    ) -> None:
        """Send a frame, and duplicates of `fds`.

        Raises:
            ConnectionError: The other end is gone.
            TimeoutError: It did not take the frame in time.
            FrameTooLargeError: The frame is too long; nothing was sent.
        """
        data = frames.encode(frame)
        with self._lock:
            self._end.settimeout(within_s)
            sent = socket.send_fds(self._end, [data], list(fds)) if fds else 0
            self._end.sendall(memoryview(data)[sent:])

    def receive(self, within_s: float | None = None) -> tuple[bytearray, list[int]]:
        """The next frame's body, and the descriptors that came along, the caller's to close.

        Raises:
            ConnectionError: The other end is gone.
            TimeoutError: It did not come in time.
            ProtocolError: It is of another version, or too long.
        """
        deadline = None if within_s is None else time.monotonic() + within_s
        with self._lock:
            return self._receive(deadline)

    def close(self) -> None:
        """The other end sees the end of the stream. Waits for a call under way, from any thread."""
        with self._lock:
            self._end.close()

    def _receive(self, deadline: float | None) -> tuple[bytearray, list[int]]:
        data, fds = bytearray(), list[int]()
        try:
            while len(data) < frames.HEADER.size:
                self._read(data, fds, deadline)
            wanted = frames.HEADER.size + frames.body_bytes(data)
            while len(data) < wanted:
                self._read(data, fds, deadline)
        except BaseException:
            close_all(fds)
            raise
        del data[: frames.HEADER.size]
        return data, fds

    def _read(self, data: bytearray, fds: list[int], deadline: float | None) -> None:
        left_s = None if deadline is None else max(1e-3, deadline - time.monotonic())
        self._end.settimeout(left_s)
        part, more, _, _ = socket.recv_fds(self._end, READ_BYTES, FDS_MAX)
        fds.extend(more)
        if not part:
            raise ConnectionResetError("the stream has ended")
        data += part


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        with suppress(OSError):
            os.close(fd)
