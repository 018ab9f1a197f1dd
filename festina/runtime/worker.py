"""One process of a cluster: `python -m festina.runtime.worker ROLE`.

Reads one line of JSON from stdin (`Task`), writes one line to stdout (`Ready` or `Refusal`), an
agent a second one (`Preloaded`, or the `Refusal` of a model that was to be preloaded), and serves
until SIGTERM, SIGINT or the end of stdin, which comes when its parent dies in any way.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Literal

import msgspec

from festina.config import Config
from festina.errors import ConfigError, ErrorInfo, FestinaError
from festina.log import crash_told_as_json, logging_to_stderr

Role = Literal["scheduler", "standby", "agent", "consolidator", "gateway"]

STOP_TIMEOUT_S = 5.0
"""A process that has not ended this long after it was told to is ended by force."""
EXIT_REFUSED = 2
EXIT_STUCK = 70
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the process should be.

    Attributes:
        config: Settings of the whole cluster.
        name: Name of the process.
        gpu: Device of the agent.
        scheduler_endpoint: Where the agent registers, and the consolidator and the gateway ask.
    """

    config: Config
    name: str = "scheduler"
    gpu: str = ""
    scheduler_endpoint: str = ""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The process listens at `endpoint`."""

    endpoint: str


class Preloaded(msgspec.Struct, frozen=True, tag=True):
    """All models are there that were to be resident from the start."""


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """The process could not start, or not with all it was told to load."""

    error: ErrorInfo


Report = Ready | Preloaded | Refusal


def main() -> int:
    """Run the process that `sys.argv` and stdin describe."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    stop = threading.Event()
    try:
        run = _role(sys.argv[1:])
        task = _read_task()
        for watch in (_watch_signals, _watch_parent):
            threading.Thread(target=watch, args=(stop,), daemon=True).start()
        if task.config.log.format == "json":
            sys.excepthook = crash_told_as_json(task.name)
        with logging_to_stderr(task.config.log, task.name):
            run(task, stop)
    except FestinaError as error:
        _report(Refusal(error.info()))
        return EXIT_REFUSED
    return 0


def _role(arguments: list[str]) -> Callable[[Task, threading.Event], None]:
    match arguments:
        case ["scheduler"]:
            return _run_scheduler
        case ["standby"]:
            return _run_standby
        case ["agent"]:
            return _run_agent
        case ["consolidator"]:
            return _run_consolidator
        case ["gateway"]:
            return _run_gateway
    raise ConfigError(
        f"{arguments} is no role",
        field="role",
        expected="scheduler, standby, agent, consolidator or gateway",
    )


def _run_scheduler(task: Task, stop: threading.Event) -> None:
    from festina.runtime.scheduler import run

    run(task.config, _announce, stop)


def _run_standby(task: Task, stop: threading.Event) -> None:
    from festina.runtime.scheduler import run

    run(task.config, _announce, stop, standby=True)


def _run_agent(task: Task, stop: threading.Event) -> None:
    from festina.runtime.agent import run

    run(task.config, task.name, task.gpu, task.scheduler_endpoint, _announce, stop, _tell_preloaded)


def _run_consolidator(task: Task, stop: threading.Event) -> None:
    from festina.runtime.consolidator import run

    run(task.config, task.scheduler_endpoint, _announce, stop)


def _run_gateway(task: Task, stop: threading.Event) -> None:
    from festina.gateway.process import run

    run(task.config, task.scheduler_endpoint, _announce, stop)


def _read_task() -> Task:
    try:
        return msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"not a task: {error}", field="stdin", expected="one line of JSON"
        ) from error


def _announce(endpoint: str) -> None:
    _report(Ready(endpoint))


def _tell_preloaded(error: FestinaError | None) -> None:
    _report(Preloaded() if error is None else Refusal(error.info()))


def _report(report: Report) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


def _watch_signals(stop: threading.Event) -> None:
    signal.sigwait(_STOP_SIGNALS)
    _stop(stop)


def _watch_parent(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    _stop(stop)


def _stop(stop: threading.Event) -> None:
    """Tell the process to end; if it has not after a while, something is stuck."""
    stop.set()
    threading.Event().wait(STOP_TIMEOUT_S)
    os._exit(EXIT_STUCK)


if __name__ == "__main__":
    sys.exit(main())
