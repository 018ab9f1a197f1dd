"""Frames of all kinds, right and wrong: codecs round-trip, and no frame stops a process.

`make fuzz` runs many more examples (`FESTINA_FUZZ_EXAMPLES`).
"""

from __future__ import annotations

import os
import random
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect
from no_gpu import CONFIG, ENDPOINT, JOB, NoGpu, NoGpuAgent, loaded_engine, read

from festina.engine.base import LoadedModel
from festina.engine.simulated import SimulatedEngine
from festina.errors import ProtocolError
from festina.messages import AnyMessage, Failed, Submit, decode, encode
from festina.runtime.protocol.client import ClientLogic
from festina.runtime.protocol.client_effects import ClientLimits
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.scheduler import SchedulerLogic

EXAMPLES = int(os.environ.get("FESTINA_FUZZ_EXAMPLES", "100"))
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])


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
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(values, items))
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


@many
@given(messages)
def test_every_message_comes_back_equal(message: AnyMessage):
    assert decode(encode(message)) == message


@many
@given(mutated())
def test_a_frame_that_was_damaged_is_a_message_or_a_typed_error(frame: bytes):
    message = read(frame)
    assert message.field if isinstance(message, ProtocolError) else type(message) in KINDS


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
def loaded() -> tuple[SimulatedEngine, LoadedModel]:
    return loaded_engine()


@many
@given(arrivals=steps, link=st.sampled_from(["clients", "scheduler"]))
def test_no_frame_stops_an_agent(loaded: tuple, arrivals: list, link: str):
    one = NoGpuAgent(*loaded, step_s=0.01)
    for peer, frame in arrivals:
        one.take(link, peer if link == "clients" else b"", read(frame), 0.05)
    logic = one.logic
    ends = logic.on_stop(one.now)
    assert len(logic.requests) == 0
    assert sum(isinstance(e.message, Failed) for e in ends if isinstance(e, Send)) <= len(arrivals)


@many
@given(st.lists(st.tuples(st.sampled_from([b"", ENDPOINT.encode()]), frames), max_size=12))
def test_no_frame_stops_a_client_and_each_request_ends_once(arrivals: list):
    logic = ClientLogic(CONFIG.link, ClientLimits(), random.Random(0))
    logic.start(JOB, 0.0)
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
