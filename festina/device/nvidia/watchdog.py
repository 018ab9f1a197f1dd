"""A process that gives a GPU's clock back when its agent dies, kill -9 included.

It holds the reading end of a pipe and sleeps. The kernel closes the writing end however the agent
ends; unless the agent wrote `RELEASED` before, the clock is reset. It runs in a session of its own
and ignores the signals that end a foreground job. What ends both at once (a container that is
killed, the machine) nobody can mend here: the next agent resets the clock as it opens the device.
"""

from __future__ import annotations

import select
import signal
import subprocess
import sys
from contextlib import suppress

from festina.device.nvidia.nvml import Nvml
from festina.errors import DeviceError, FestinaError

READY = b"ready\n"
RELEASED = b"released\n"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Watchdog:
    """The agent's side. Not thread-safe.

    Args:
        uuid: Of the GPU whose clock is to be given back.
        start_s: How long it may take to start.
    """

    def __init__(self, uuid: str, start_s: float = START_TIMEOUT_S) -> None:
        self._uuid = uuid
        self._start_s = start_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 where none runs."""
        return 0 if self._process is None else self._process.pid

    def arm(self) -> None:
        """Make sure that it watches: before the first lock of the clock, and each one after.

        Raises:
            DeviceError: It cannot reach the GPU, or not soon.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self._drop(b"")
        self._process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            [sys.executable, "-P", "-m", "festina.device.nvidia.watchdog", self._uuid],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # what ends the agent's process group must not end it
        )
        said = self._process.stdout
        assert said is not None  # noqa: S101 - asked for above
        heard = select.poll()
        heard.register(said, select.POLLIN)
        if not heard.poll(1e3 * self._start_s) or said.readline() != READY:
            self._drop(b"")
            raise DeviceError(f"the clock watchdog of {self._uuid} did not start", field="nvml")

    def release(self) -> None:
        """The clock has been given back: end it."""
        self._drop(RELEASED)

    def abandon(self) -> None:
        """The clock could not be given back: let it try, as after the agent's death."""
        self._drop(b"")

    def _drop(self, last_words: bytes) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):  # dead already, or stuck in NVML
            process.communicate(last_words, STOP_TIMEOUT_S)


def main(arguments: list[str]) -> int:
    """The watchdog's side: `arguments` is the UUID of the GPU."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    (uuid,) = arguments
    try:
        with Nvml() as nvml:
            gpu = nvml.gpu(uuid)
            sys.stdout.buffer.write(READY)
            sys.stdout.buffer.flush()
            if sys.stdin.buffer.read() != RELEASED:
                gpu.reset_clock()
    except FestinaError as error:
        print(f"clock watchdog of {uuid}: {error}", file=sys.stderr)  # noqa: T201 (nobody else is left)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
