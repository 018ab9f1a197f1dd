"""Targets that hold the state of a process: scheduler, agent and client take damaged frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from bench.fuzz.frames import wire_corpus
from bench.fuzz.target import Target
from tests.unit.test_messages_fuzz import NoGpu

from festina.config import Config, DeploymentConfig
from festina.control.step_time import LearnedStepTime
from festina.device import physics
from festina.device.simulated import SimulatedDevice
from festina.engine.simulated import SimulatedEngine
from festina.errors import ProtocolError
from festina.messages import AnyMessage, Generate, Submit, decode, encode
from festina.runtime.agent_device import gpu_prior
from festina.runtime.protocol.agent import AgentIdentity, AgentLogic
from festina.runtime.protocol.agent_effects import LoadModel, StartStep, UnloadModel
from festina.runtime.protocol.client import ClientLogic
from festina.runtime.protocol.client_effects import ClientLimits
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.request import Job
from festina.runtime.protocol.scheduler import SchedulerLogic

ENDPOINT = "tcp://127.0.0.1:7101"
EFFECTS_MAX = 50
CONFIG = Config(
    deployments=(
        DeploymentConfig(name="chat", weights="sim:llama-8b", kv_tokens=256, context_tokens=128),
    )
)


def read(frame: bytes) -> AnyMessage | ProtocolError:
    """As a link does."""
    try:
        return decode(frame)
    except ProtocolError as error:
        return error


def scheduler(_: Path) -> Target:
    """Two peers that say anything; the timer runs on."""

    def start() -> Callable[[bytes], None]:
        logic = SchedulerLogic(CONFIG, NoGpu(), 1)
        clock = _Clock(0.25)

        def take(frame: bytes) -> None:
            now = clock.tick()
            message = read(frame)
            for send in logic.on_message(b"ab"[len(frame) & 1 :][:1], message, now):
                encode(send.message)
            logic.on_timer(now)
            if isinstance(message, ProtocolError):
                raise message

        return take

    return Target(wire_corpus(), start, intact=8)


def agent(_: Path) -> Target:
    """Clients, other agents and the scheduler say anything; what the agent asks for is done."""
    device = SimulatedDevice(physics.gpu_named("H100-SXM5-80GB"), now=0.0)
    engine = SimulatedEngine(device, clock=lambda: 0.0, sleep=lambda _: None)
    model = engine.load(CONFIG.deployments[0])

    def start() -> Callable[[bytes], None]:
        logic = AgentLogic(
            AgentIdentity("gpu0", 0, ENDPOINT),
            CONFIG,
            SimulatedDevice(physics.gpu_named("H100-SXM5-80GB"), now=0.0),
            lambda m: LearnedStepTime(gpu_prior(m)),
        )
        clock = _Clock(0.05)
        todo = list(logic.on_start(0.0))

        def take(frame: bytes) -> None:
            now = clock.tick()
            link = "scheduler" if len(frame) % 3 == 0 else "clients"
            peer = b"" if link == "scheduler" else b"a"
            message = read(frame)
            todo.extend(logic.on_message(link, peer, message, now))
            todo.extend(logic.on_timer(now))
            for _ in range(min(len(todo), EFFECTS_MAX)):
                match todo.pop(0):
                    case Send(message=sent):
                        encode(sent)
                    case LoadModel():
                        todo.extend(logic.on_loaded("chat", model, now))
                    case UnloadModel():
                        todo.extend(logic.on_unloaded("chat", None, now))
                    case StartStep(step_id, batch):
                        todo.extend(logic.on_step_done(step_id, engine.step(batch), now))
            if isinstance(message, ProtocolError):
                raise message

        return take

    return Target(wire_corpus(), start, intact=8)


def client(_: Path) -> Target:
    """Scheduler and agent say anything to a client with a request on its way."""

    def start() -> Callable[[bytes], None]:
        logic = ClientLogic(CONFIG.link, ClientLimits(), Random(0))
        clock = _Clock(0.25)

        def take(frame: bytes) -> None:
            now = clock.tick()
            if logic.in_flight == 0:
                name = "r"
                generate = Generate(name, "chat", 0, 0, 8, 0.0, text="a")
                logic.start(Job(Submit(name, "chat", 1, 8), generate), now)
            message = read(frame)
            peer = ENDPOINT.encode() if len(frame) & 1 else b""
            logic.on_message(peer, message, now)
            logic.on_timer(now)
            if isinstance(message, ProtocolError):
                raise message

        return take

    return Target(wire_corpus(), start, intact=8)


class _Clock:
    """Seconds that go on with each input."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._now = 0.0

    def tick(self) -> float:
        self._now += self._step_s
        return self._now
