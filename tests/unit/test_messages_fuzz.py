"""Frames of all kinds, right and wrong: codecs round-trip, and no frame stops a process.

`make fuzz` runs many more examples (`FESTINA_FUZZ_EXAMPLES`).
"""

from __future__ import annotations

import os
import random
from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from festina.config import Config, DeploymentConfig
from festina.control.step_time import LearnedStepTime
from festina.device import physics
from festina.device.simulated import SimulatedDevice
from festina.engine.simulated import SimulatedEngine
from festina.errors import ProtocolError
from festina.messages import AnyMessage, Failed, Generate, Submit, decode, encode
from festina.runtime.agent_device import gpu_prior
from festina.runtime.protocol.agent import AgentIdentity, AgentLogic
from festina.runtime.protocol.agent_effects import LoadModel, StartStep, UnloadModel
from festina.runtime.protocol.client import ClientLogic
from festina.runtime.protocol.client_effects import ClientLimits
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.request import Job
from festina.runtime.protocol.scheduler import SchedulerLogic

EXAMPLES = int(os.environ.get("FESTINA_FUZZ_EXAMPLES", "100"))
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ENDPOINT = "tcp://127.0.0.1:7101"
CONFIG = Config(
    deployments=(
        DeploymentConfig(name="chat", weights="sim:llama-8b", kv_tokens=256, context_tokens=128),
    )
)


def values(kind: inspect.Type) -> st.SearchStrategy:
    """Values that the codec accepts for `kind`, drawn from its declaration."""
    match kind:
        case inspect.IntType(ge=low, le=high):
            return st.integers(
                -(2**63) if low is None else low, 2**63 - 1 if high is None else high
            )
        case inspect.FloatType(ge=low, le=high):
            return st.floats(low, high, allow_nan=False)
        case inspect.StrType(min_length=low, max_length=high):
            names = st.sampled_from(["chat", "r", "gpu0", ENDPOINT])
            return names | st.text(min_size=low or 0, max_size=min(high or 20, 20))
        case inspect.BytesType(max_length=high):
            return st.binary(max_size=min(high or 64, 64))
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.VarTupleType(item_type=item, min_length=low):
            return st.lists(values(item), min_size=low or 0, max_size=4).map(tuple)
        case inspect.UnionType(types=kinds):
            return st.one_of([values(one) for one in kinds])
        case inspect.LiteralType(values=allowed):
            return st.sampled_from(allowed)
        case inspect.EnumType(cls=cls):
            return st.sampled_from(cls)
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, *(values(field.type) for field in fields))
    raise AssertionError(f"no strategy for {kind}")


KINDS = get_args(AnyMessage)
messages = st.one_of([values(inspect.type_info(kind)) for kind in KINDS])
valid = messages.map(encode)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A frame with some bytes changed, cut off or put in."""
    frame = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(frame)))
        match draw(st.sampled_from(["change", "cut", "insert"])):
            case "change" if place < len(frame):
                frame[place] = draw(st.integers(0, 255))
            case "cut":
                del frame[place:]
            case _:
                frame[place:place] = draw(st.binary(min_size=1, max_size=8))
    return bytes(frame)


frames = valid | mutated() | st.binary(max_size=64) | st.binary(max_size=64).map(b"\x01".__add__)


def read(frame: bytes) -> AnyMessage | ProtocolError:
    """As a link does."""
    try:
        return decode(frame)
    except ProtocolError as error:
        return error


@many
@given(messages)
def test_every_message_comes_back_equal(message: AnyMessage):
    assert decode(encode(message)) == message


@many
@given(mutated())
def test_a_frame_that_was_damaged_is_a_message_or_a_typed_error(frame: bytes):
    message = read(frame)
    assert message.field if isinstance(message, ProtocolError) else type(message) in KINDS


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


peers = st.sampled_from([b"a", b"b"])
steps = st.lists(st.tuples(peers, frames), min_size=1, max_size=12)


@many
@given(steps)
def test_no_frame_stops_the_scheduler(arrivals: list[tuple[bytes, bytes]]):
    logic = SchedulerLogic(CONFIG, NoGpu(), 1)
    for second, (peer, frame) in enumerate(arrivals):
        for send in logic.on_message(peer, read(frame), second / 4):
            encode(send.message)
        logic.on_timer(second / 4)
    assert logic.on_message(b"c", Submit("r", "nobody", 1, 1), 99.0)


@pytest.fixture(scope="module")
def loaded() -> tuple[SimulatedDevice, SimulatedEngine, object]:
    device = SimulatedDevice(physics.gpu_named("H100-SXM5-80GB"), now=0.0)
    engine = SimulatedEngine(device, clock=lambda: 0.0, sleep=lambda _: None)
    return device, engine, engine.load(CONFIG.deployments[0])


@many
@given(arrivals=steps, link=st.sampled_from(["clients", "scheduler"]))
def test_no_frame_stops_an_agent(loaded: tuple, arrivals: list, link: str):
    _, engine, model = loaded
    device = SimulatedDevice(physics.gpu_named("H100-SXM5-80GB"), now=0.0)
    logic = AgentLogic(
        AgentIdentity("gpu0", 0, ENDPOINT), CONFIG, device, lambda m: LearnedStepTime(gpu_prior(m))
    )
    now = 0.0
    todo = list(logic.on_start(now))
    for peer, frame in arrivals:
        now += 0.05
        todo += logic.on_message(link, peer if link == "clients" else b"", read(frame), now)
        todo += logic.on_timer(now)
        for _ in range(50):
            if not todo:
                break
            effect = todo.pop(0)
            match effect:
                case Send():
                    encode(effect.message)
                case LoadModel():
                    todo += logic.on_loaded("chat", model, now)
                case UnloadModel():
                    todo += logic.on_unloaded("chat", None, now)
                case StartStep(step_id, batch):
                    now += 0.01
                    todo += logic.on_step_done(step_id, engine.step(batch), now)
    ends = logic.on_stop(now)
    assert len(logic.requests) == 0
    assert sum(isinstance(e.message, Failed) for e in ends if isinstance(e, Send)) <= len(arrivals)


@many
@given(st.lists(st.tuples(st.sampled_from([b"", ENDPOINT.encode()]), frames), max_size=12))
def test_no_frame_stops_a_client_and_each_request_ends_once(arrivals: list):
    logic = ClientLogic(CONFIG.link, ClientLimits(), random.Random(0))
    logic.start(Job(Submit("r", "chat", 1, 8), Generate("r", "chat", 0, 0, 8, 0.0, text="a")), 0.0)
    effects = []
    for second, (peer, frame) in enumerate(arrivals):
        effects += logic.on_message(peer, read(frame), second / 4)
        effects += logic.on_timer(second / 4)
    effects += logic.close(99.0)
    ends = [e for e in effects if getattr(e, "request_id", None) == "r" and _ends(e.event)]
    assert len(ends) == 1
    assert logic.in_flight == 0


def _ends(event: object) -> bool:
    return type(event).__name__ not in ("Accepted", "Tokens")
