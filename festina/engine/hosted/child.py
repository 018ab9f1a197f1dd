"""The engine's process as the agent handles it: start, talk with deadlines, end by all means."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from festina.engine.cpu import COMPUTE_ENV
from festina.engine.hosted import frames
from festina.engine.hosted.channel import Channel, close_all
from festina.errors import ProtocolError, from_info

END_TIMEOUT_S = 5.0
"""How long a process may take to end by itself, and after that to be reaped."""


class ChildLostError(Exception):
    """The process is gone, stuck, or talks nonsense; it must be killed."""


class Child:
    """One process, light and without a context until `open`.

    Its methods are for one thread; `kill` and `close` may come from any.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", "festina.engine.hosted", str(theirs.fileno())]
            self._popen = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                [*command, str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=os.environ | COMPUTE_ENV,
            )
        self._channel = Channel(ours)
        self._ready: frames.Ready | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def open(self, opening: frames.Open, bulk_fd: int) -> None:
        """Have it take its device's context.

        Args:
            opening: What it should be.
            bulk_fd: The shared memory, of which it gets a duplicate.
        """
        with suppress(OSError):  # it is dead: `await_ready` will tell
            self._channel.send(opening, (bulk_fd,), END_TIMEOUT_S)

    def await_ready(self, within_s: float) -> frames.Ready:
        """Until it holds its device's context; later calls do not wait.

        Raises:
            ChildLostError: It does not get there.
            FestinaError: Why it refuses to.
        """
        if self._ready is None:
            reply = self.hear(within_s)
            if isinstance(reply, frames.Raised):
                raise from_info(reply.error)
            if not isinstance(reply, frames.Ready):
                raise ChildLostError(f"began with {type(reply).__name__}")
            self._ready = reply
        return self._ready

    def say(self, request: frames.Request, within_s: float, fds: Sequence[int] = ()) -> None:
        """Send a request; `hear` its reply next.

        Raises:
            ChildLostError: It does not take it.
            FrameTooLargeError: It is too long; nothing was sent.
        """
        try:
            self._channel.send(request, fds, within_s)
        except TimeoutError:
            raise ChildLostError(f"took nothing for {within_s:g} s") from None
        except OSError as error:
            raise ChildLostError(self._ended(error)) from None

    def hear(self, within_s: float) -> frames.Reply:
        """Its reply.

        Raises:
            ChildLostError: None comes.
        """
        try:
            body, fds = self._channel.receive(within_s)
            close_all(fds)
            return frames.decode_reply(body)
        except TimeoutError:
            raise ChildLostError(f"said nothing for {within_s:g} s") from None
        except OSError as error:
            raise ChildLostError(self._ended(error)) from None
        except ProtocolError as error:
            raise ChildLostError(str(error)) from error

    def end(self) -> None:
        """Let it end by itself, as the end of its stream tells it to; else kill it."""
        self._channel.close()
        try:
            self._popen.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it by force, stopped or stuck as it may be, and reap it."""
        self._popen.kill()
        with suppress(subprocess.TimeoutExpired):  # in the driver, say: the kernel will get it
            self._popen.wait(END_TIMEOUT_S)

    def close(self) -> None:
        """Close this side of the stream; a thread that waits for a killed process is let out."""
        self._channel.close()

    def _ended(self, error: OSError) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(1.0)
        code = self._popen.returncode
        if code is None:
            return f"closed its stream: {error}"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
