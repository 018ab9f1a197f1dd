"""The engine's process: `python -m festina.engine.hosted FD PARENT`, started by its agent.

`FD` is its end of the stream, `PARENT` the process id of the agent, with which it ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from festina.engine.hosted import frames
from festina.engine.hosted.channel import Channel
from festina.engine.hosted.server import Server, open_engine
from festina.errors import FestinaError
from festina.log import crash_told_as_json
from festina.runtime.failpoints import failpoint

PR_SET_PDEATHSIG = 1
OOM_SCORE = "300"
"""Where memory runs out, the kernel should take the engine, which can be had again."""


def main(arguments: list[str]) -> int:
    """Serve until the agent closes the stream."""
    fd, parent = map(int, arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the agent
    _die_with(parent)
    with suppress(OSError):  # not every kernel or container lets it
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    channel = Channel(socket.socket(fileno=fd))
    try:
        body, fds = channel.receive()
    except ConnectionError:
        return 0
    opening = frames.decode_request(body)
    if not isinstance(opening, frames.Open):
        return 2
    if opening.log_format == "json":
        sys.excepthook = crash_told_as_json("engine")
    try:
        engine, partitions = open_engine(opening)
    except FestinaError as error:
        channel.send(frames.Raised(error.info()))
        return 2
    channel.send(frames.Ready(partitions))
    Server(channel, engine, fds[0], failpoint).serve()
    return 0


def _die_with(parent: int) -> None:
    """Be killed when the parent's thread that started this process ends, stopped or stuck."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        sys.exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
