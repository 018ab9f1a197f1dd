"""Agents on the machines of a Ray cluster. Ray places and supervises; it never carries tokens.

One actor per device starts the agent as a process of its own and ends with it; Ray starts the actor
again, which starts the agent again under the same name with a larger epoch. Clients and scheduler
talk to agents over ZeroMQ as everywhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from festina.config import Config
from festina.errors import ConfigError, ErrorInfo, FestinaError, StartError, from_info
from festina.runtime.child import Child
from festina.runtime.worker import Task

START_TIMEOUT_S = 120.0
POLL_S = 0.2
EXIT_AGENT_ENDED = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where an agent is to run.

    Attributes:
        node_id: Ray's name of the machine.
        address: Where the machine can be reached.
        name: Name of the agent.
        gpu: What it opens there: "cuda:0" (Ray shows an actor its own GPU alone), "cpu", "sim".
    """

    node_id: str
    address: str
    name: str
    gpu: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of the Ray cluster.

    Attributes:
        node_id: Ray's name of it.
        address: Where it can be reached.
        gpus: GPUs that Ray knows there.
    """

    node_id: str
    address: str
    gpus: int


def machines() -> list[Machine]:
    """Those that are alive, by address. Ray must be connected."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    found = [
        Machine(node["NodeID"], node["NodeManagerAddress"], int(node["Resources"].get("GPU", 0)))
        for node in nodes
    ]
    return sorted(found, key=lambda machine: (machine.address, machine.node_id))


def places(found: Iterable[Machine], device: str, per_machine: int) -> list[Place]:
    """One agent for each device.

    Args:
        found: Machines.
        device: `cuda` for every GPU that Ray knows; `cpu` or `sim…` for `per_machine` on each.
        per_machine: How many on each machine, for devices that are not GPUs.

    Raises:
        ConfigError: No such device, or nowhere to run.
    """
    if device != "cuda" and device != "cpu" and device.partition(":")[0] != "sim":
        raise ConfigError(f"{device!r}", field="device", expected="cuda, cpu, sim or sim:KIND")
    wanted = [
        Place(
            machine.node_id,
            machine.address,
            f"node{number}-{device.partition(':')[0]}{ordinal}",
            "cuda:0" if device == "cuda" else device,
        )
        for number, machine in enumerate(found)
        for ordinal in range(machine.gpus if device == "cuda" else per_machine)
    ]
    if not wanted:
        raise ConfigError(
            "Ray knows no machine with such a device", field="device", expected="one GPU at least"
        )
    return wanted


class AgentActor:
    """Runs one agent. An instance lives in a process of Ray's.

    Args:
        task: `Task` of the agent as JSON.
    """

    def __init__(self, task: bytes) -> None:
        self._child = Child("agent", msgspec.json.decode(task, type=Task))
        self._report: bytes | None = None

    def report(self) -> bytes:
        """JSON: the text of the endpoint for clients, or an `ErrorInfo` of why there is none.

        No exception of ours goes through Ray, which would pickle it.
        """
        if self._report is None:
            try:
                told = self._child.endpoint(time.monotonic() + START_TIMEOUT_S)
                self._report = msgspec.json.encode(told)
            except FestinaError as error:
                self._report = msgspec.json.encode(error.info())
        return self._report

    def pid(self) -> int:
        """Process id of the agent."""
        return self._child.pid

    def watch(self) -> None:
        """Returns never: when the agent has ended, so does the actor, which Ray starts again."""
        while self._child.exit_code is None:
            time.sleep(POLL_S)
        os._exit(EXIT_AGENT_ENDED)

    def stop(self) -> None:
        """End the agent in order."""
        self._child.stop()
        self._child.finish(time.monotonic() + START_TIMEOUT_S)


class RayAgents:
    """Agents on a Ray cluster, ended when the `with` block does. Ray must be connected.

    Args:
        config: Settings of the agents. Where they listen is set for each by its machine.
        scheduler_endpoint: Where they register.
        wanted: Where they run.
    """

    def __init__(self, config: Config, scheduler_endpoint: str, wanted: Iterable[Place]) -> None:
        self._config = config
        self._scheduler_endpoint = scheduler_endpoint
        self._wanted = tuple(wanted)
        self._actors: dict[str, ActorHandle] = {}

    def __enter__(self) -> RayAgents:
        """Start them all.

        Raises:
            StartError: One did not start.
        """
        try:
            for place in self._wanted:
                self._actors[place.name] = self._start(place)
            for name in self._actors:
                self.endpoint(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the agents."""
        return tuple(self._actors)

    def endpoint(self, name: str) -> str:
        """Where an agent listens, once it does.

        Raises:
            StartError: It does not start in time.
        FestinaError: What the agent found wrong.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                report = ray.get(self._actors[name].report.remote(), timeout=START_TIMEOUT_S)
                break
            except RayActorError as error:  # being started again
                if time.monotonic() > deadline:
                    raise StartError(f"{name}: {error}", field=name, expected="an agent") from error
                time.sleep(POLL_S)
        told = msgspec.json.decode(report, type=str | ErrorInfo)
        if isinstance(told, str):
            return told
        raise from_info(told)

    def pid(self, name: str) -> int:
        """Process id of an agent, on its machine."""
        return int(ray.get(self._actors[name].pid.remote()))

    def restarts(self) -> Iterator[str]:
        """Names of agents that have ended and were started again, as it happens. Never ends."""
        watches = {actor.watch.remote(): name for name, actor in self._actors.items()}
        while True:
            done, _ = ray.wait(list(watches), timeout=POLL_S)
            for watch in done:
                name = watches.pop(watch)
                self.endpoint(name)
                watches[self._actors[name].watch.remote()] = name
                yield name
            if not done:
                yield ""

    def close(self) -> None:
        """End them all, in order."""
        stops = [actor.stop.remote() for actor in self._actors.values()]
        ray.wait(stops, num_returns=len(stops), timeout=START_TIMEOUT_S) if stops else None
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors = {}

    def _start(self, place: Place) -> ActorHandle:
        agent = self._config.agent
        if self._config.security.identity:  # else only loopback is allowed, on one machine
            agent = msgspec.structs.replace(
                agent, endpoint="tcp://0.0.0.0:0", advertise=place.address
            )
        config = msgspec.structs.replace(self._config, agent=agent)
        task = Task(config, place.name, place.gpu, self._scheduler_endpoint)
        placed = NodeAffinitySchedulingStrategy(place.node_id, soft=False)
        actor = ray.remote(AgentActor).options(
            name=f"festina-{place.name}",
            num_cpus=0,
            num_gpus=1 if place.gpu.startswith("cuda") else 0,
            max_restarts=-1,
            max_concurrency=3,  # `watch` blocks one, `stop` must get through
            scheduling_strategy=placed,
        )
        return actor.remote(msgspec.json.encode(task))
