"""A cluster on this machine: a scheduler, an agent per device, a consolidator, and a gateway."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from types import TracebackType
from typing import Literal, Self

import zmq
from msgspec.structs import replace

from festina import messages
from festina.config import Config
from festina.errors import StartError
from festina.runtime.child import Child
from festina.runtime.gpu_spec import parse_gpus
from festina.runtime.restarts import Restarts
from festina.runtime.transport import connect_scheduler
from festina.runtime.worker import STOP_TIMEOUT_S, Role, Task

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


@dataclass(frozen=True, slots=True)
class Restart:
    """A process that has died will be started again.

    Attributes:
        death: Which, and how it ended.
        pause_s: When.
    """

    death: Death
    pause_s: float


class Cluster:
    """Runs while its `with` block does; leaves no process, file or shared memory behind.

    Processes that die are started again by `supervise`; else `deaths` tells.

    Args:
        config: Everything.
        start_timeout_s: Bound of the start. Models that are preloaded may still be on their way at
            its end: requests wait for them. One that fails before ends the start.
        stop_timeout_s: Bound of the end; processes that take longer are killed.
        environment: Variables for a process, by its name, beside those of this one.
    """

    def __init__(
        self,
        config: Config,
        *,
        start_timeout_s: float = 120.0,
        stop_timeout_s: float = STOP_TIMEOUT_S + 2.0,
        environment: Callable[[str], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self._config = config
        self._gpus = parse_gpus(config.gpus)
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._environment = environment
        self._restarts = Restarts(config.supervisor)
        self._children: dict[str, Child] = {}
        self._url = ""

    @property
    def endpoint(self) -> str:
        """Where clients connect; "" while it is not running."""
        return self._config.scheduler.endpoint if self._children else ""

    @property
    def standby_endpoint(self) -> str:
        """Where they find the standby of the scheduler; "" without one."""
        return self._config.scheduler.standby_endpoint if self._children else ""

    @property
    def url(self) -> str:
        """Where HTTP clients connect; "" without a gateway."""
        return self._url

    @property
    def pids(self) -> dict[str, int]:
        """Process id of each process, by name."""
        return {name: child.pid for name, child in self._children.items()}

    def deaths(self) -> tuple[Death, ...]:
        """Processes that have ended while the cluster should be running."""
        return tuple(
            Death(name, code)
            for name, child in self._children.items()
            if (code := child.exit_code) is not None
        )

    def wait(self) -> tuple[Death, ...]:
        """Wait until a process dies, and tell which; Ctrl-C raises as usual."""
        while not (deaths := self.deaths()):
            time.sleep(POLL_S)
        return deaths

    def supervise(
        self, stop: Event | None = None, tell: Callable[[Restart], None] = lambda _: None
    ) -> None:
        """Start again what dies, until `stop` is set; Ctrl-C raises as usual.

        Args:
            stop: Ends it.
            tell: Hears of each process that died.
        """
        while stop is None or not stop.is_set():
            for restart in self.restart_dead():
                tell(restart)
            time.sleep(POLL_S)

    def restart_dead(self) -> list[Restart]:
        """Start again what has died and has waited long enough; what has died since last time."""
        now, found = time.monotonic(), []
        for death in self.deaths():
            if not self._restarts.waits(death.name):
                lived_s = now - self._children[death.name].started_at
                found.append(Restart(death, self._restarts.died(death.name, lived_s, now)))
        for name in self._restarts.take_due(now):
            dead = self._children[name]
            dead.finish(now)
            self._spawn(dead.role, dead.task)
        return found

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

    def _spawn(self, role: Role, task: Task) -> Child:
        child = self._children[task.name] = Child(role, task, self._environment(task.name))
        return child

    def _start(self, deadline: float) -> None:
        self._start_schedulers(deadline)
        endpoint = self._config.scheduler.endpoint
        agents = [
            self._spawn("agent", Task(self._config, gpu.name, gpu.gpu, endpoint))
            for gpu in self._gpus
        ]
        for agent in agents:
            agent.endpoint(deadline)
        self._wait_for_summaries(deadline)
        for agent in agents:
            agent.check_preloads(deadline)
        if self._config.consolidator.policy != "off" and len(self._gpus) > 1:
            task = Task(self._config, "consolidator", scheduler_endpoint=endpoint)
            self._spawn("consolidator", task)  # nobody waits for it
        if self._config.gateway.http:
            task = Task(self._config, "gateway", scheduler_endpoint=endpoint)
            self._url = self._spawn("gateway", task).endpoint(deadline)
            self._keep_url()

    def _start_schedulers(self, deadline: float) -> None:
        """Those that are started later must find them at the ports that the system has chosen."""
        self._start_scheduler("scheduler", "endpoint", deadline)
        if self._config.scheduler.standby_endpoint:
            self._start_scheduler("standby", "standby_endpoint", deadline)

    def _start_scheduler(
        self, role: Literal["scheduler", "standby"], field: str, deadline: float
    ) -> None:
        child = self._spawn(role, Task(self._config, role))
        bound = replace(self._config.scheduler, **{field: child.endpoint(deadline)})
        self._config = replace(self._config, scheduler=bound)
        child.task = Task(self._config, role)

    def _keep_url(self) -> None:
        """A gateway that is started again must listen where its clients know it."""
        bound = replace(self._config.gateway, http=self._url.partition("://")[2])
        task = Task(
            replace(self._config, gateway=bound),
            "gateway",
            scheduler_endpoint=self._config.scheduler.endpoint,
        )
        self._children["gateway"].task = task

    def _wait_for_summaries(self, deadline: float) -> None:
        """Until the scheduler has heard from all agents."""
        missing = {gpu.name for gpu in self._gpus}
        with (
            zmq.Context() as context,
            connect_scheduler(context, self.endpoint, self._config) as link,
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

    def _stop(self) -> None:
        """End the gateway and its requests, the agents, then the schedulers they say goodbye to."""
        children = list(self._children.values())
        first = [child for child in children if child.role in ("gateway", "consolidator")]
        agents = [child for child in children if child.role == "agent"]
        for group in (first, agents, children):
            deadline = time.monotonic() + self._stop_timeout_s
            for child in group:
                child.stop()
            for child in group:
                child.finish(deadline)
        self._children = {}
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
