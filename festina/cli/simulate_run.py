"""Runs of an experiment, one after the other in this process, and how Ctrl-C ends them early."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Protocol

from festina.simulator.experiment import Run
from festina.simulator.result import PolicyResult
from festina.simulator.run import ClusterSettings, simulate
from festina.simulator.sensitivity import with_setting
from festina.simulator.workload import Workload

PROGRESS_LINE = "progress"


class Progress(Protocol):
    """Hears how far runs have come."""

    def update(self, name: str, share: float) -> None:
        """A run has got this far, 0 to 1."""

    def finish(self, name: str, result: PolicyResult) -> None:
        """A run has ended."""


class ProgressLines:
    """Tells a parent process: a line of stderr for every hundredth."""

    def update(self, name: str, share: float) -> None:  # noqa: ARG002 - a child has one run
        """As `Progress.update`."""
        print(f"{PROGRESS_LINE} {share:.4f}", file=sys.stderr, flush=True)

    def finish(self, name: str, result: PolicyResult) -> None:
        """As `Progress.finish`: the result goes to stdout."""


class Stop:
    """Inside, the first Ctrl-C or SIGTERM only sets `asked`; the second one interrupts.

    While `urgent` the first one interrupts, too: nobody looks at `asked` then.
    """

    def __init__(self) -> None:
        self.asked = False
        self.urgent = False

    def __enter__(self) -> Stop:
        self._before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's form
        again, self.asked = self.asked, True
        if again or self.urgent:
            raise KeyboardInterrupt


def run_here(
    runs: Iterable[Run],
    workload: Workload,
    cluster: ClusterSettings,
    stop: Stop,
    progress: Progress,
    traced: tuple[Run, tuple[float, float]] | None,
) -> dict[Run, PolicyResult]:
    """Results of the runs; once `stop` is asked, the running one ends early and none follows.

    Args:
        runs: What to simulate.
        workload: Its requests.
        cluster: GPUs, before the setting of a run.
        stop: When to end.
        progress: Hears of every run.
        traced: The run whose spans are recorded, and the window in s.
    """
    found: dict[Run, PolicyResult] = {}
    for run in runs:
        if stop.asked:
            break

        def go_on(share: float, label: str = run.label) -> bool:
            progress.update(label, share)
            return not stop.asked

        gpu = cluster.gpu if run.setting is None else with_setting(cluster.gpu, *run.setting)
        found[run] = simulate(
            workload,
            replace(cluster, gpu=gpu),
            run.policy,
            dict(run.options),
            progress=go_on,
            trace_window_s=traced[1] if traced is not None and run == traced[0] else None,
        )
        progress.finish(run.label, found[run])
    return found
