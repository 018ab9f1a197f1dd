"""A cluster on this machine: a scheduler, an agent per device, and a gateway if wanted."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import zmq

from festina import messages
from festina.config import Config
from festina.errors import StartError
from festina.runtime.child import Child
from festina.runtime.gpu_spec import parse_gpus
from festina.runtime.transport import connect_scheduler
from festina.runtime.worker import STOP_TIMEOUT_S, Task

POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Death:
    """A process that ended although nobody told it to.

    Attributes:
        name: Which.
        exit_code: Its exit status; negative for a signal.
    """

    name: str
    exit_code: int


class Cluster:
    """Runs while its `with` block does; leaves no process, file or shared memory behind.

    Processes that die are not started again: `deaths` tells.

    Args:
        config: Everything.
        start_timeout_s: Bound of the start. Models that are preloaded may still be on their way at
            its end: requests wait for them. One that fails before ends the start.
        stop_timeout_s: Bound of the end; processes that take longer are killed.
    """

    def __init__(
        self,
        config: Config,
        *,
        start_timeout_s: float = 120.0,
        stop_timeout_s: float = STOP_TIMEOUT_S + 2.0,
    ) -> None:
        self._config = config
        self._gpus = parse_gpus(config.gpus)
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._scheduler: Child | None = None
        self._agents: list[Child] = []
        self._gateway: Child | None = None
        self._endpoint = ""
        self._url = ""

    @property
    def endpoint(self) -> str:
        """Where clients connect; "" while it is not running."""
        return self._endpoint

    @property
    def url(self) -> str:
        """Where HTTP clients connect; "" without a gateway."""
        return self._url

    @property
    def pids(self) -> dict[str, int]:
        """Process id of each process, by name."""
        return {process.name: process.pid for process in self._processes()}

    def deaths(self) -> tuple[Death, ...]:
        """Processes that have ended while the cluster should be running."""
        return tuple(
            Death(process.name, code)
            for process in self._processes()
            if (code := process.exit_code) is not None
        )

    def wait(self) -> tuple[Death, ...]:
        """Wait until a process dies, and tell which; Ctrl-C raises as usual."""
        while not (deaths := self.deaths()):
            time.sleep(POLL_S)
        return deaths

    def __enter__(self) -> Self:
        """Start everything and wait until every agent has joined.

        Raises:
            StartError: A process did not start in time.
            FestinaError: What a process found wrong with its settings, or with a model that was to
                be preloaded.
        """
        try:
            self._start(time.monotonic() + self._start_timeout_s)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _start(self, deadline: float) -> None:
        self._scheduler = Child("scheduler", Task(self._config))
        self._endpoint = self._scheduler.endpoint(deadline)
        for gpu in self._gpus:
            task = Task(self._config, gpu.name, gpu.gpu, self._endpoint)
            self._agents.append(Child("agent", task))
        for agent in self._agents:
            agent.endpoint(deadline)
        self._wait_for_summaries(deadline)
        for agent in self._agents:
            agent.check_preloads(deadline)
        if self._config.gateway.http:
            task = Task(self._config, "gateway", scheduler_endpoint=self._endpoint)
            self._gateway = Child("gateway", task)
            self._url = self._gateway.endpoint(deadline)

    def _wait_for_summaries(self, deadline: float) -> None:
        """Until the scheduler has heard from all agents."""
        missing = {gpu.name for gpu in self._gpus}
        with (
            zmq.Context() as context,
            connect_scheduler(context, self._endpoint, self._config) as link,
        ):
            while missing:
                if self.deaths() or time.monotonic() > deadline:
                    names = ", ".join(sorted(missing))
                    raise StartError(
                        f"{names} did not join", field="gpus", expected="every agent registers"
                    )
                link.send(messages.GetCluster())
                link.wait(POLL_S)
                for _, message in link.receive(16):
                    if isinstance(message, messages.Cluster):
                        missing -= {agent.agent for agent in message.agents}
                        time.sleep(POLL_S if missing else 0.0)

    def _processes(self) -> list[Child]:
        first = [] if self._scheduler is None else [self._scheduler]
        last = [] if self._gateway is None else [self._gateway]
        return first + self._agents + last

    def _stop(self) -> None:
        """End the gateway and its requests, the agents, then the scheduler they say goodbye to."""
        gateway = [] if self._gateway is None else [self._gateway]
        for group in (gateway, self._agents, self._processes()):
            deadline = time.monotonic() + self._stop_timeout_s
            for process in group:
                process.stop()
            for process in group:
                process.finish(deadline)
        self._agents = []
        self._gateway = None
        self._scheduler = None
        self._endpoint = ""
        self._url = ""


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, SIGTERM and Ctrl-C raise `KeyboardInterrupt`: `with` blocks close, children stop.

    Ctrl-C is set as well, for a shell starts background jobs with it ignored.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
