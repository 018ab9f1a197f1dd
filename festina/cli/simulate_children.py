"""Runs of an experiment in processes of their own, several at a time.

A child is `festina simulate … --json` with one policy: it gets its orders as arguments and its
result is read as JSON, so that nothing but text passes between processes.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import IO

from festina.cli.simulate_run import PROGRESS_LINE, Progress, Stop
from festina.errors import SimulationError
from festina.simulator.experiment import Run
from festina.simulator.report import from_json
from festina.simulator.result import PolicyResult

INTERRUPTED = 130
"""Exit code of a run that was asked to stop and wrote what it had."""

LOOK_S = 0.1


class Children:
    """Up to `jobs` child processes.

    Args:
        jobs: How many at a time.
        arguments: The command line of a run, after `festina`.
        stop: When to end.
        progress: Hears of every run.
    """

    def __init__(
        self, jobs: int, arguments: Callable[[Run], list[str]], stop: Stop, progress: Progress
    ) -> None:
        self._jobs = jobs
        self._arguments = arguments
        self._stop = stop
        self._progress = progress
        self._alive: set[subprocess.Popen[str]] = set()
        self._lock = Lock()
        self._closed = False

    def run(self, runs: Iterable[Run]) -> dict[Run, PolicyResult]:
        """Results of the runs; once `stop` is asked, running ones end early and none follows.

        Raises:
            SimulationError: A child failed; the others were told to end.
        """
        with ThreadPoolExecutor(self._jobs) as pool:
            futures = {pool.submit(self._child, run): run for run in runs}
            try:
                return self._gather(futures)
            finally:
                self._close()

    def _gather(self, futures: dict[Future[PolicyResult | None], Run]) -> dict[Run, PolicyResult]:
        found: dict[Run, PolicyResult] = {}
        pending = set(futures)
        while pending:
            done, pending = wait(pending, LOOK_S, FIRST_COMPLETED)
            for future in done:
                result = future.result()
                if result is not None:
                    found[futures[future]] = result
            if self._stop.asked:
                self._close()
        return found

    def _close(self) -> None:
        """No child starts any more; those alive are told to end, once."""
        with self._lock:
            alive = () if self._closed else tuple(self._alive)
            self._closed = True
        for process in alive:
            process.send_signal(signal.SIGINT)

    def _child(self, run: Run) -> PolicyResult | None:
        command = [sys.executable, "-m", "festina", *self._arguments(run)]
        with tempfile.TemporaryFile("w+") as answer:
            with self._lock:
                if self._closed:
                    return None
                # A group of its own: Ctrl-C reaches it through us alone, exactly once.
                process = subprocess.Popen(  # noqa: S603 - our own command
                    command, stdout=answer, stderr=subprocess.PIPE, text=True, process_group=0
                )
                self._alive.add(process)
            with process:
                words = self._listen(run, process)
            with self._lock:
                self._alive.discard(process)
            if process.returncode not in (0, INTERRUPTED):
                raise SimulationError(f"{run.label} failed: {words or process.returncode}")
            answer.seek(0)
            return self._result(run, answer)

    def _listen(self, run: Run, process: subprocess.Popen[str]) -> str:
        """Passes progress on until the child's stderr ends; returns its last other line."""
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        words = ""
        for line in process.stderr:
            kind, _, rest = line.strip().partition(" ")
            if kind == PROGRESS_LINE:
                self._progress.update(run.label, float(rest))
            elif rest:
                words = line.strip()
        return words

    def _result(self, run: Run, answer: IO[str]) -> PolicyResult | None:
        report = from_json(answer.read().encode(), run.label)[0]
        if not report.results:
            return None
        self._progress.finish(run.label, report.results[0])
        return report.results[0]
