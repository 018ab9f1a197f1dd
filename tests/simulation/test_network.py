"""Scheduler, agents and clients on a simulated network that loses, repeats, delays and crashes.

The logic is the real one, in virtual time. Each seed is one run; promise 1 must hold in all:
every request ends exactly once, its tokens in order, none missing and none twice.
"""

from __future__ import annotations

import heapq
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from festina.config import AgentConfig, Config, DeploymentConfig, LinkConfig, SchedulerConfig
from festina.control.step_time import LearnedStepTime
from festina.device import physics
from festina.device.simulated import SimulatedDevice
from festina.engine.simulated import SimulatedEngine
from festina.errors import FestinaError, OverloadedError, ProtocolError
from festina.messages import AnyMessage, Generate, Submit, Tokens, decode, encode
from festina.runtime.agent_device import gpu_prior
from festina.runtime.protocol.agent import AgentIdentity, AgentLogic
from festina.runtime.protocol.agent_effects import LoadModel, SetClock, StartStep, UnloadModel
from festina.runtime.protocol.client import ClientLogic
from festina.runtime.protocol.client_effects import ClientLimits, Tell
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.request import Ended, Job
from festina.runtime.protocol.scheduler import SchedulerLogic
from festina.types import Slo

SEEDS = int(os.environ.get("FESTINA_NETWORK_SEEDS", "24"))
AGENTS, CLIENTS, REQUESTS = 2, 2, 8
HORIZON_S, SEND_S = 45.0, 8.0

CONFIG = Config(
    deployments=(
        DeploymentConfig(name="chat", weights="sim:llama-8b", kv_tokens=512, context_tokens=256),
    ),
    link=LinkConfig(heartbeat_s=0.5, missed_max=4),
    scheduler=SchedulerConfig(reservation_s=2.0),
    agent=AgentConfig(summary_hz=2.0, client_timeout_s=3.0, chunk_tokens=64),
)
LIMITS = ClientLimits(answer_timeout_s=4.0, resend_s=0.5, probe_s=1.0, idle_s=5.0)


@dataclass(frozen=True)
class Faults:
    """Probabilities per message, and how many processes crash."""

    drop: float = 0.0
    repeat: float = 0.0
    delay_s: float = 0.001
    agent_crashes: int = 0
    scheduler_crashes: int = 0
    client_crashes: int = 0
    cancels: float = 0.0


@dataclass(frozen=True)
class Decision:
    slot: int
    action: str


@dataclass
class LeastReserved:
    """A view that spreads requests evenly: what is under test is the protocol."""

    reserved: dict[int, int] = field(default_factory=dict)

    def add_gpu(self, name, device_kind, sms_total, clocks_mhz, memory_bytes, models):
        slot = max(self.reserved, default=-1) + 1
        self.reserved[slot] = 0
        return slot

    def remove_gpu(self, slot):
        del self.reserved[slot]

    def update(self, slot, summary):
        self.reserved[slot] = sum(model.running + model.waiting for model in summary.models)

    def place(self, model, input_tokens, max_tokens, slo, exclude=()):
        free = [slot for slot in self.reserved if slot not in exclude]
        if not free:
            raise OverloadedError("no agent", retry_after_ms=200)
        return Decision(min(free, key=self.reserved.__getitem__), "run")

    def reserve(self, slot, ticket, model, input_tokens, now, max_tokens=0):
        self.reserved[slot] += 1

    def expire(self, now):
        return 0


class Network:
    """Nodes, links between them that keep order, and virtual time."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self.now = 0.0
        self.nodes: dict[str, Node] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._arrival: dict[tuple[str, str], float] = {}

    def at(self, time: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, action))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()

    def send(self, source: str, target: str, message: AnyMessage) -> None:
        faults, frame = self.faults, encode(message)
        copies = 0 if self.rng.random() < faults.drop else 1 + (self.rng.random() < faults.repeat)
        for _ in range(copies):
            arrival = self.now + 1e-4 + self.rng.expovariate(1.0) * faults.delay_s
            arrival = max(arrival, self._arrival.get((source, target), 0.0))
            self._arrival[source, target] = arrival
            self.at(arrival, lambda: self._deliver(source, target, frame))

    def _deliver(self, source: str, target: str, frame: bytes) -> None:
        node = self.nodes.get(target)
        if node is not None:
            node.receive(source, decode(frame))


class Node:
    """A process: its logic, its timer, its effects."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        self.alive = True
        self._wake_at = float("inf")
        network.nodes[name] = self

    def crash(self) -> None:
        self.alive = False
        del self.network.nodes[self.name]

    def settle(self, due: float | None) -> None:
        """Wake when the logic wants it."""
        if due is None or due >= self._wake_at or due == float("inf"):
            return
        self._wake_at = due = max(due, self.network.now + 1e-4)
        self.network.at(due, lambda: self._wake(due))

    def _wake(self, due: float) -> None:
        if self.alive and due == self._wake_at:
            self._wake_at = float("inf")
            self.timer()

    def receive(self, source: str, message: AnyMessage) -> None: ...

    def timer(self) -> None: ...


class SchedulerNode(Node):
    def __init__(self, network: Network, epoch: int) -> None:
        super().__init__(network, "scheduler")
        self.logic = SchedulerLogic(CONFIG, LeastReserved(), epoch)
        self.timer()

    def receive(self, source: str, message: AnyMessage) -> None:
        self._act(self.logic.on_message(source.encode(), message, self.network.now))

    def timer(self) -> None:
        self._act(self.logic.on_timer(self.network.now))

    def _act(self, effects: list[Send]) -> None:
        for send in effects:
            self.network.send(self.name, send.peer.decode(), send.message)
        self.settle(self.logic.next_timer(self.network.now))


class AgentNode(Node):
    def __init__(self, network: Network, number: int, epoch: int) -> None:
        self.endpoint = f"tcp://127.0.0.1:{7100 + number}"
        super().__init__(network, self.endpoint)
        self.device = SimulatedDevice(physics.gpu_named("H100-SXM5-80GB"), now=network.now)
        self.engine = SimulatedEngine(self.device, clock=lambda: 0.0, sleep=lambda _: None)
        identity = AgentIdentity(f"gpu{number}", epoch, self.endpoint)
        self.logic = AgentLogic(
            identity, CONFIG, self.device, lambda loaded: LearnedStepTime(gpu_prior(loaded))
        )
        self._act(self.logic.on_start(network.now))

    def receive(self, source: str, message: AnyMessage) -> None:
        link = "scheduler" if source == "scheduler" else "clients"
        peer = b"" if link == "scheduler" else source.encode()
        self._act(self.logic.on_message(link, peer, message, self.network.now))

    def timer(self) -> None:
        self._act(self.logic.on_timer(self.network.now))

    def _act(self, effects: list) -> None:
        network = self.network
        for effect in effects:
            match effect:
                case Send("scheduler", _, message):
                    network.send(self.name, "scheduler", message)
                case Send(_, peer, message):
                    network.send(self.name, peer.decode(), message)
                case StartStep(step_id, batch):
                    result = self.engine.step(batch)
                    self._later(result.latency_ms / 1e3, self.logic.on_step_done, step_id, result)
                case LoadModel(deployment):
                    loaded = self.engine.load(deployment)
                    self._later(0.3, self.logic.on_loaded, deployment.name, loaded)
                case UnloadModel(model):
                    self.engine.unload(model)
                    self._later(0.01, self.logic.on_unloaded, model, None)
                case SetClock(clock_mhz):
                    self.device.set_clock_mhz(clock_mhz)
        self.settle(self.logic.next_timer())

    def _later(self, delay_s: float, report: Callable, *values: object) -> None:
        def done() -> None:
            if self.alive:
                self._act(report(*values, self.network.now))

        self.network.at(self.network.now + delay_s, done)


class ClientNode(Node):
    def __init__(self, network: Network, number: int) -> None:
        super().__init__(network, f"client{number}")
        self.logic = ClientLogic(CONFIG.link, LIMITS, random.Random(number))
        self.told: dict[str, list] = defaultdict(list)

    def start(self, job: Job) -> None:
        if self.alive:
            self.told[job.submit.request_id] = []
            self._act(self.logic.start(job, self.network.now))

    def cancel(self, request_id: str) -> None:
        if self.alive:
            self._act(self.logic.cancel(request_id, self.network.now))

    def receive(self, source: str, message: AnyMessage | ProtocolError) -> None:
        peer = b"" if source == "scheduler" else source.encode()
        self._act(self.logic.on_message(peer, message, self.network.now))

    def timer(self) -> None:
        self._act(self.logic.on_timer(self.network.now))

    def _act(self, effects: list) -> None:
        for effect in effects:
            match effect:
                case Send("scheduler", _, message):
                    self.network.send(self.name, "scheduler", message)
                case Send(_, peer, message):
                    self.network.send(self.name, peer.decode(), message)
                case Tell(request_id, event):
                    self.told[request_id].append(event)
        self.settle(self.logic.next_timer(self.network.now))


def run(seed: int, faults: Faults) -> tuple[Network, list[ClientNode], list[AgentNode]]:
    network = Network(seed, faults)
    rng = network.rng
    epochs = iter(range(1, 1000))
    SchedulerNode(network, next(epochs))
    agents = [AgentNode(network, number, next(epochs)) for number in range(AGENTS)]
    clients = [ClientNode(network, number) for number in range(CLIENTS)]
    for client in clients:
        for number in range(REQUESTS):
            name = f"{client.name}-{number}"
            prompt = tuple(rng.randrange(256) for _ in range(rng.randint(1, 150)))
            outputs = rng.randint(1, 30)
            slo = Slo(2000.0, 200.0)
            job = Job(
                Submit(name, "chat", len(prompt), outputs, slo),
                Generate(name, "chat", 0, 0, outputs, 0.0, slo, token_ids=prompt),
                retries=rng.randint(0, 3),
            )
            start = rng.uniform(0.5, SEND_S)
            network.at(start, lambda client=client, job=job: client.start(job))
            if rng.random() < faults.cancels:
                later = start + rng.uniform(0.0, 2.0)
                network.at(later, lambda client=client, name=name: client.cancel(name))

    def restart_agent(number: int) -> None:
        agents[number].crash()
        network.at(
            network.now + rng.uniform(0.0, 4.0),
            lambda: agents.__setitem__(number, AgentNode(network, number, next(epochs))),
        )

    def restart_scheduler() -> None:
        network.nodes["scheduler"].crash()
        network.at(
            network.now + rng.uniform(0.0, 3.0), lambda: SchedulerNode(network, next(epochs))
        )

    for crash in range(faults.agent_crashes):
        number = crash % AGENTS
        network.at(rng.uniform(1 + 10 * crash, 6 + 10 * crash), lambda n=number: restart_agent(n))
    for crash in range(faults.scheduler_crashes):
        network.at(rng.uniform(1 + 10 * crash, 6 + 10 * crash), restart_scheduler)
    for client in clients[: faults.client_crashes]:
        network.at(rng.uniform(1.0, SEND_S), client.crash)
    network.run(HORIZON_S)
    return network, clients, agents


def check_promise(clients: list[ClientNode], agents: list[AgentNode]) -> Counter:
    """Every request of a client that lives ended once and in order; returns how they ended."""
    ends: Counter[str] = Counter()
    for client in clients:
        for name, events in client.told.items():
            tokens = [event for event in events if isinstance(event, Tokens)]
            finals = [event for event in events if isinstance(event, Ended | FestinaError)]
            indices = [t.index + i for t in tokens for i in range(len(t.token_ids))]
            assert indices == list(range(len(indices))), name
            if not client.alive:
                assert len(finals) <= 1, name
                continue
            assert len(finals) == 1, (name, finals)
            assert events[-1] is finals[0], name
            if isinstance(finals[0], Ended):
                assert finals[0].usage.output_tokens == len(indices), name
                ends["complete"] += 1
            else:
                ends[finals[0].code] += 1
        if client.alive:
            assert client.logic.in_flight == 0
    assert [len(agent.logic.requests) for agent in agents] == [0] * AGENTS
    return ends


ALL = CLIENTS * REQUESTS
MIXES = {
    "slow": Faults(delay_s=0.05),
    "repeating": Faults(repeat=0.2, delay_s=0.01),
    "losing": Faults(drop=0.05, delay_s=0.01),
    "agents crash": Faults(agent_crashes=2),
    "the scheduler crashes": Faults(scheduler_crashes=2),
    "a client vanishes": Faults(client_crashes=1),
    "callers change their minds": Faults(cancels=0.5, delay_s=0.02),
    "everything": Faults(0.03, 0.05, 0.02, 2, 1, 1, 0.2),
}


@pytest.mark.parametrize("seed", range(2))
def test_on_a_good_network_every_request_completes(seed: int):
    _, clients, agents = run(seed, Faults())
    assert check_promise(clients, agents) == {"complete": ALL}


@pytest.mark.parametrize("mix", ["slow", "repeating", "the scheduler crashes"])
def test_faults_that_time_can_mend_cost_no_request(mix: str):
    for seed in range(2):
        _, clients, agents = run(seed, MIXES[mix])
        ends = check_promise(clients, agents)
        assert ends.keys() <= {"complete", "overloaded"}, (seed, ends)
        assert ends["complete"] >= ALL / 2, (seed, ends)


@pytest.mark.parametrize("mix", MIXES)
def test_every_request_ends_exactly_once_whatever_the_network_does(mix: str):
    ends: Counter[str] = Counter()
    for seed in range(max(1, SEEDS // len(MIXES))):
        try:
            _, clients, agents = run(1000 + seed, MIXES[mix])
            ends += check_promise(clients, agents)
        except AssertionError as error:
            raise AssertionError(f"seed {1000 + seed} of {mix!r}: {error}") from error
    assert ends["complete"] > 0.2 * ends.total(), ends


def test_the_same_seed_gives_the_same_run():
    def story(seed: int) -> list:
        _, clients, _ = run(seed, MIXES["everything"])
        return [(name, str(events)) for client in clients for name, events in client.told.items()]

    assert story(7) == story(7)
