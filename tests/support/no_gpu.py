"""Processes without a GPU, sockets or time, for those who feed them whatever frames they like."""

from collections import deque
from typing import Any

import msgspec

from festina.config import Config, DeploymentConfig
from festina.control.step_time import LearnedStepTime
from festina.device import physics
from festina.device.simulated import SimulatedDevice
from festina.engine.base import LoadedModel
from festina.engine.simulated import SimulatedEngine
from festina.errors import ProtocolError
from festina.messages import AnyMessage, Generate, Submit, decode, encode
from festina.runtime.agent_device import gpu_prior
from festina.runtime.protocol.agent import AgentIdentity, AgentLogic
from festina.runtime.protocol.agent_effects import LoadModel, StartStep, UnloadModel
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.request import Job

ENDPOINT = "tcp://127.0.0.1:7101"
EFFECTS_MAX = 50
"""Carried out after one frame: a loop without end would be one in the test too."""
CONFIG = Config(
    deployments=(
        DeploymentConfig(name="chat", weights="sim:llama-8b", kv_tokens=256, context_tokens=128),
    )
)
JOB = Job(Submit("r", "chat", 1, 8), Generate("r", "chat", 0, 0, 8, 0.0, text="a"))


def read(frame: bytes) -> AnyMessage | ProtocolError:
    """As a link does."""
    try:
        return decode(frame)
    except ProtocolError as error:
        return error


class NoGpu:
    """A view that takes GPUs and places nothing beyond the first."""

    def __init__(self) -> None:
        self.slots: set[int] = set()

    def add_gpu(self, *_: object) -> int:
        slot = max(self.slots, default=-1) + 1
        self.slots.add(slot)
        return slot

    def remove_gpu(self, slot: int) -> None:
        self.slots.remove(slot)

    def update(self, slot: int, summary: object) -> None:
        assert slot in self.slots

    def place(self, *_: object) -> object:
        return msgspec.structs.replace(_Decision(), slot=min(self.slots))

    def reserve(self, slot: int, *_: object) -> None:
        assert slot in self.slots

    def expire(self, now: float) -> int:
        return 0


class _Decision(msgspec.Struct):
    slot: int = 0
    action: str = "load"


def loaded_engine() -> tuple[SimulatedEngine, LoadedModel]:
    """An engine that takes no time, with what `CONFIG` deploys."""
    engine = SimulatedEngine(_device(), clock=lambda: 0.0, sleep=lambda _: None)
    return engine, engine.load(CONFIG.deployments[0])


class NoGpuAgent:
    """An agent's logic; what it asks of its engine is done while the next frame comes.

    Args:
        engine: Runs its steps; others may use it too.
        model: What is loaded in it.
        step_s: What a step takes.
    """

    def __init__(self, engine: SimulatedEngine, model: LoadedModel, step_s: float = 0.0) -> None:
        self.logic = AgentLogic(
            AgentIdentity("gpu0", 0, ENDPOINT),
            CONFIG,
            _device(),
            lambda loaded: LearnedStepTime(gpu_prior(loaded)),
        )
        self.now = 0.0
        self._engine, self._model, self._step_s = engine, model, step_s
        self._todo: deque[Any] = deque(self.logic.on_start(0.0))

    def take(
        self, link: str, peer: bytes, message: AnyMessage | ProtocolError, after_s: float
    ) -> None:
        """A frame comes so much later than the last one."""
        self.now += after_s
        self._todo.extend(self.logic.on_message(link, peer, message, self.now))
        self._todo.extend(self.logic.on_timer(self.now))
        for _ in range(EFFECTS_MAX):
            if not self._todo:
                return
            self._carry_out(self._todo.popleft())

    def _carry_out(self, effect: object) -> None:
        match effect:
            case Send(message=sent):
                encode(sent)
            case LoadModel():
                self._todo.extend(self.logic.on_loaded("chat", self._model, self.now))
            case UnloadModel():
                self._todo.extend(self.logic.on_unloaded("chat", None, self.now))
            case StartStep(step_id, batch):
                self.now += self._step_s
                result = self._engine.step(batch)
                self._todo.extend(self.logic.on_step_done(step_id, result, self.now))


def _device() -> SimulatedDevice:
    return SimulatedDevice(physics.gpu_named("H100-SXM5-80GB"), now=0.0)
