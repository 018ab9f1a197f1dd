"""A trace for ui.perfetto.dev that several processes of one machine write together, as it happens.

The file is a JSON array, an event a line, each line written by one append; viewers accept it
without its end, so that processes that are killed leave a trace that can be read. All times are of
the machine's monotonic clock. A thread writes: a slow disk costs events, a full one the rest of the
trace, and neither ever the work that it tells of.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from festina.errors import ConfigError, TraceError

Event = dict[str, object]

BUFFER_BYTES_MAX = 4 * 1024 * 1024
"""Events that wait for the disk; more are lost."""
PIECE_BYTES_MAX = 256 * 1024
"""Written at once. The file ends up larger than its bound by no more than one from each process."""
FLUSH_S = 0.2
CLOSE_S = 2.0
"""How long the last events may take."""
_FIELD = "trace.file"
_HEAD = b"[\n"


def begin_trace(path: Path) -> None:
    """Make the file anew, for those who append to it.

    Raises:
        ConfigError: It cannot be made. A disk that is full is no reason: it may have room later.
    """
    try:
        with path.open("wb", buffering=0) as file, suppress(OSError):
            file.write(_HEAD)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", field=_FIELD, expected="a file"
        ) from error


def end_trace(path: Path) -> None:
    """Make it proper JSON, once nobody appends to it any more. Viewers do without."""
    last = {"name": "end", "ph": "i", "s": "g", "pid": 0, "tid": 0, "ts": time.monotonic() * 1e6}
    with suppress(OSError), path.open("ab", buffering=0) as file:
        file.write(msgspec.json.encode(last) + b"\n]\n")


def process_number(name: str) -> int:
    """A process of the trace: the same for everyone who tells of a GPU of this name."""
    return zlib.crc32(name.encode()) % (2**31 - 1) + 1


class TraceFile:
    """Appends to a trace what one thread adds. One that cannot be written any more is given up.

    Args:
        path: The file; made if it is not there.
        bytes_max: Bound of the file, of all who write to it together.
        warn: Called once, by another thread, when it is given up.

    Attributes:
        error: Why it was given up.
    """

    def __init__(self, path: Path, bytes_max: int, warn: Callable[[TraceError], None]) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._warn = warn
        self._lines: deque[bytes] = deque()
        self._taken = self._added = 0
        self._dropped = self._unwritten = 0
        self._closing = threading.Event()
        self.error: TraceError | None = None
        self._thread = threading.Thread(target=self._run, name="trace", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Events that are not in the file and never will be."""
        return self._dropped + self._unwritten

    def add(self, event: Event) -> None:
        """One more event; it is in the file within a second, if at all."""
        line = msgspec.json.encode(event) + b",\n"
        if self.error is not None or self._added - self._taken + len(line) > BUFFER_BYTES_MAX:
            self._dropped += 1
            return
        self._added += len(line)
        self._lines.append(line)

    def close(self) -> None:
        """Write what is left, for a while at most."""
        self._closing.set()
        self._thread.join(CLOSE_S)

    # The thread

    def _run(self) -> None:
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            self._give_up(f"cannot be written: {error.strerror}", "a file that can be written")
            return
        try:
            while not self._closing.wait(FLUSH_S):
                self._flush(file)
            self._flush(file)
        except OSError as error:
            self._give_up(f"cannot be written any more: {error.strerror}", "room on its disk")
        finally:
            os.close(file)

    def _flush(self, file: int) -> None:
        while self._lines and self.error is None:
            size = os.fstat(file).st_size
            if size >= self._bytes_max:
                self._give_up("has reached its bound", f"at most {self._bytes_max} bytes")
                return
            count, piece = self._take(b"" if size else _HEAD)
            self._unwritten += count
            while piece:  # one write, but for a disk that is almost full
                piece = piece[os.write(file, piece) :]
            self._unwritten -= count

    def _take(self, head: bytes) -> tuple[int, bytes]:
        """Lines for one write, how many and what."""
        lines, size = [head], 0
        while self._lines and size < PIECE_BYTES_MAX:
            line = self._lines.popleft()
            size += len(line)
            lines.append(line)
        self._taken += size
        return len(lines) - 1, b"".join(lines)

    def _give_up(self, what: str, expected: str) -> None:
        self.error = TraceError(
            f"{self._path} {what}, so the trace ends here", field=_FIELD, expected=expected
        )
        self._unwritten += len(self._lines)
        self._lines.clear()
        self._warn(self.error)
