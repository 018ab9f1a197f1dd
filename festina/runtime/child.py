"""A process of a cluster as its parent sees it: started, waited for, ended."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from festina.engine.cpu import COMPUTE_ENV
from festina.errors import StartError, from_info
from festina.runtime.worker import Ready, Refusal, Report, Role, Task

LINE_BYTES_MAX = 65536


class Child:
    """One worker and its pipes. It ends when this process does, in whatever way.

    Args:
        role: What it is.
        task: What it is told; `task.name` names it.
        environment: Variables beside those of this process.
    """

    def __init__(self, role: Role, task: Task, environment: Mapping[str, str] = {}) -> None:
        self.name = task.name
        self.role = role
        self.task = task
        self.started_at = time.monotonic()
        self._unread = b""
        self._popen = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            [sys.executable, "-P", "-m", "festina.runtime.worker", role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | COMPUTE_ENV | dict(environment),
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which ends all in order
        )
        stdin = self._popen.stdin
        if stdin is None:
            raise RuntimeError("Popen was asked for a pipe")
        with suppress(BrokenPipeError):  # it died at once: reading its report will tell
            stdin.write(msgspec.json.encode(task) + b"\n")
            stdin.flush()

    @property
    def exit_code(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._popen.poll()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def endpoint(self, deadline: float) -> str:
        """Where it listens, once it has said so.

        Raises:
            StartError: It did not by then.
            FestinaError: What it said instead.
        """
        report = self._read_report(deadline)
        if not isinstance(report, Ready):
            code = self.exit_code
            what = "is not ready in time" if code is None else f"ended with status {code}"
            raise StartError(f"{self.name} {what}", field=self.name, expected="a report")
        return report.endpoint

    def check_preloads(self, deadline: float) -> None:
        """Wait until it has what it was to preload, or the deadline has passed.

        Raises:
            FestinaError: Why it has not.
        """
        self._read_report(deadline)

    def stop(self) -> None:
        """Ask it to end; `finish` waits for that."""
        if self.exit_code is None:
            self._popen.terminate()

    def finish(self, deadline: float) -> None:
        """Wait until it has ended; past the deadline, kill it."""
        try:
            self._popen.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _read_report(self, deadline: float) -> Report | None:
        """Its next report; None if none comes by then.

        Raises:
            FestinaError: What it refuses.
        """
        line = self._read_line(deadline)
        if line is None:
            return None
        report: Report = msgspec.json.decode(line, type=Report)
        if isinstance(report, Refusal):
            raise from_info(report.error)
        return report

    def _read_line(self, deadline: float) -> bytes | None:
        stdout = self._popen.stdout
        if stdout is None:
            raise RuntimeError("Popen was asked for a pipe")
        while b"\n" not in self._unread and len(self._unread) < LINE_BYTES_MAX:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([stdout], [], [], left_s)[0]:
                return None
            data = os.read(stdout.fileno(), LINE_BYTES_MAX)
            if not data:
                self._popen.wait(max(0.0, deadline - time.monotonic()))
                return None
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line
