"""A stream that breaks goes on elsewhere: each token once and in order, tries and waits bounded."""

import dataclasses
import random

import pytest

from festina.config import LinkConfig
from festina.errors import (
    AgentLostError,
    DeviceError,
    EngineError,
    FestinaError,
    InfeasibleError,
    OverloadedError,
    ProtocolError,
)
from festina.messages import (
    FRAME_BYTES_MAX,
    Accepted,
    Cancel,
    Failed,
    Finished,
    Generate,
    Placed,
    Pong,
    Refused,
    Submit,
    Tokens,
)
from festina.runtime.protocol.client import ClientLogic
from festina.runtime.protocol.client_effects import (
    SCHEDULER,
    STANDBY,
    ClientLimits,
    Disconnect,
    Tell,
)
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.request import Ended, Job
from festina.types import FinishReason, Provenance, Usage

LINK = LinkConfig(heartbeat_s=0.5, missed_max=4)
LIMITS = ClientLimits(backoff_s=0.5, backoff_s_max=2.0, resumptions_max=3, resume_s=5.0)
ENDPOINTS = {"gpu0": "tcp://127.0.0.1:7100", "gpu1": "tcp://127.0.0.1:7101"}
GPU0, GPU1 = (endpoint.encode() for endpoint in ENDPOINTS.values())
LOST = AgentLostError("shutting down")


def placed(agent: str, ticket: int, epoch: int = 5) -> Placed:
    return Placed("r", agent, epoch, ENDPOINTS[agent], ticket)


def tokens(*indices: int) -> Tokens:
    return Tokens("r", indices[0], tuple(100 + index for index in indices), "x" * len(indices))


def finished(outputs: int) -> Finished:
    return Finished("r", FinishReason.LENGTH, Usage(3, outputs, 0.5, Provenance.MODELLED))


def sent(effects: list, kind: type) -> list:
    return [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]


def told(effects: list) -> list:
    return [effect.event for effect in effects if isinstance(effect, Tell)]


def streaming(limits: ClientLimits = LIMITS, text: str = "hello", max_tokens: int = 8):
    """A client whose request "r" has got three of its tokens from gpu0."""
    logic = ClientLogic(LINK, limits, random.Random(1))
    generate = Generate("r", "chat", 0, 0, max_tokens, 0.0, text=text)
    logic.start(Job(Submit("r", "chat", 3, max_tokens), generate), 0.0)
    logic.on_message(SCHEDULER, placed("gpu0", 77), 0.0)
    logic.on_message(GPU0, Accepted("r", 3), 0.0)
    logic.on_message(GPU0, tokens(0, 1), 0.1)
    logic.on_message(GPU0, tokens(2), 0.2)
    return logic


def run_timers(logic: ClientLogic, start: float, until: float) -> list:
    effects, now = [], start
    while (due := logic.next_timer(now)) is not None and due < until:
        now = max(now + 1e-3, due)
        effects += logic.on_timer(now)
    return effects


RESUBMITTED = Submit("r", "chat", 6, 5, exclude=("gpu0",))
"""Three tokens are input now, five are left, and gpu0 is not asked again."""

BREAKS = {
    "it says so": lambda logic: logic.on_message(GPU0, Failed("r", LOST.info()), 0.3),
    "its device is gone": lambda logic: logic.on_message(
        GPU0, Failed("r", DeviceError("lost").info()), 0.3
    ),
    "it was started anew": lambda logic: logic.on_message(GPU0, Pong(1, 6), 0.3),
    "its connection broke": lambda logic: logic.on_closed(ENDPOINTS["gpu0"], 0.3),
    "it is silent": lambda logic: run_timers(logic, 0.2, 2.9),
}


@pytest.mark.parametrize("why", BREAKS)
def test_a_stream_that_broke_is_submitted_again_with_what_has_come(why: str):
    logic = streaming()
    assert sent(BREAKS[why](logic), Submit) == [RESUBMITTED]
    effects = logic.on_message(SCHEDULER, placed("gpu1", 78), 3.0)
    (generate,) = sent(effects, Generate)
    assert generate.received == (100, 101, 102)
    assert (generate.ticket, generate.max_tokens) == (78, 8)
    logic.on_message(GPU1, Accepted("r", 3), 3.1)
    assert told(logic.on_message(GPU1, tokens(3), 3.2)) == [tokens(3)]
    assert told(logic.on_message(GPU1, tokens(4, 5, 6, 7), 3.3)) == [tokens(4, 5, 6, 7)]
    (end,) = told(logic.on_message(GPU1, finished(8), 3.4))
    assert isinstance(end, Ended)
    assert (end.agent, end.usage.output_tokens, end.usage.resumptions) == ("gpu1", 8, 1)
    assert logic.counters.resumed == 1


@pytest.mark.parametrize("broken", [tokens(4), tokens(2, 3), finished(5)])
def test_tokens_that_are_missing_are_asked_for_again_wherever_there_is_room(broken):
    logic = streaming()
    effects = logic.on_message(GPU0, broken, 0.3)
    assert told(effects) == []
    assert sent(effects, Submit) == [Submit("r", "chat", 6, 5)]
    assert logic.counters.gaps == 1
    (generate,) = sent(logic.on_message(SCHEDULER, placed("gpu0", 78), 0.4), Generate)
    assert generate.received == (100, 101, 102)


def test_an_agent_that_may_still_run_a_request_is_told_to_stop():
    logic = streaming()
    assert sent(logic.on_message(GPU0, tokens(4), 0.3), Cancel) == [Cancel("r")]


def test_the_old_agent_can_add_nothing_once_it_is_given_up():
    logic = streaming()
    BREAKS["it says so"](logic)
    assert logic.on_message(GPU0, tokens(3), 0.4) == [Send("agents", GPU0, Cancel("r"))]
    logic.on_message(SCHEDULER, placed("gpu1", 78), 0.5)
    assert told(logic.on_message(GPU0, tokens(3), 0.6)) == []
    assert told(logic.on_message(GPU0, finished(3), 0.6)) == []
    assert told(logic.on_message(GPU1, tokens(3), 0.7)) == [tokens(3)]


def test_a_late_copy_of_the_first_placement_is_not_followed():
    logic = streaming()
    BREAKS["it says so"](logic)
    assert logic.on_message(SCHEDULER, placed("gpu0", 77), 0.4) == []
    assert sent(logic.on_message(SCHEDULER, placed("gpu1", 78), 0.5), Generate)


def test_only_the_end_is_missing():
    logic = streaming(max_tokens=3)
    (submit,) = sent(BREAKS["it says so"](logic), Submit)
    assert (submit.input_tokens, submit.max_tokens) == (5, 1)
    logic.on_message(SCHEDULER, placed("gpu1", 78), 0.4)
    (end,) = told(logic.on_message(GPU1, finished(3), 0.5))
    assert isinstance(end, Ended)


def test_a_stream_that_breaks_too_often_ends_with_one_typed_error():
    logic = streaming()
    for ticket in range(78, 81):
        assert told(logic.on_message(GPU0, Failed("r", LOST.info()), 0.3)) == []
        logic.on_message(SCHEDULER, placed("gpu0", ticket), 0.4)
    (error,) = told(logic.on_message(GPU0, Failed("r", LOST.info()), 0.5))
    assert isinstance(error, AgentLostError)
    assert logic.in_flight == 0


def test_a_step_that_failed_ends_its_request():
    logic = streaming()
    (error,) = told(logic.on_message(GPU0, Failed("r", EngineError("?").info()), 0.3))
    assert isinstance(error, EngineError)


def test_while_there_is_no_other_place_the_first_agent_may_come_back():
    logic = streaming()
    BREAKS["it says so"](logic)
    refusal = Refused("r", OverloadedError("full", retry_after_ms=200).info())
    assert logic.on_message(SCHEDULER, refusal, 0.4) == []
    (again,) = sent(run_timers(logic, 0.4, 1.5), Submit)
    assert again.exclude == ()
    (generate,) = sent(logic.on_message(SCHEDULER, placed("gpu0", 78, epoch=6), 1.5), Generate)
    assert generate.received == (100, 101, 102)


def test_looking_for_a_place_has_a_bound():
    logic = streaming()
    BREAKS["it says so"](logic)
    refusal = Refused("r", OverloadedError("full", retry_after_ms=200).info())
    now, ends = 0.4, []
    while not ends:
        ends = told(logic.on_message(SCHEDULER, refusal, now))
        submits = sent(run_timers(logic, now, now + 2.5), Submit)
        assert ends or submits
        now += 2.5
    assert isinstance(ends[0], AgentLostError)
    assert now <= 0.3 + LIMITS.resume_s + 2 * 2.5


def test_a_refusal_that_time_cannot_mend_is_the_end():
    logic = streaming()
    logic.on_message(GPU0, tokens(4), 0.3)  # no agent is to blame, so none was left out
    refusal = Refused("r", InfeasibleError("no").info())
    (error,) = told(logic.on_message(SCHEDULER, refusal, 0.4))
    assert isinstance(error, InfeasibleError)


def test_a_device_that_no_other_can_stand_in_for_is_the_end():
    logic = streaming()
    BREAKS["its device is gone"](logic)
    refusal = Refused("r", OverloadedError("full", retry_after_ms=200).info())
    (error,) = told(logic.on_message(SCHEDULER, refusal, 0.4))
    assert isinstance(error, DeviceError)


def test_what_has_outgrown_its_frame_ends_with_the_reason_it_broke():
    logic = streaming(text="x" * (FRAME_BYTES_MAX - 45), max_tokens=100)
    BREAKS["it says so"](logic)
    (error,) = told(logic.on_message(SCHEDULER, placed("gpu1", 78), 0.4))
    assert isinstance(error, AgentLostError)


def test_more_tokens_than_were_asked_for_are_never_kept():
    logic = streaming(dataclasses.replace(LIMITS, resumptions_max=0), max_tokens=3)
    (error,) = told(logic.on_message(GPU0, tokens(3), 0.3))
    assert isinstance(error, ProtocolError)


def test_a_silent_agent_loses_its_link_and_none_of_its_requests():
    logic = streaming()
    effects = run_timers(logic, 0.2, 2.9)
    assert Disconnect(ENDPOINTS["gpu0"]) in effects
    assert not any(isinstance(event, FestinaError) for event in told(effects))


def two_schedulers() -> ClientLogic:
    logic = ClientLogic(LINK, LIMITS, random.Random(1), standby=True)
    generate = Generate("r", "chat", 0, 0, 8, 0.0, text="hello")
    assert asked(logic.start(Job(Submit("r", "chat", 3, 8), generate), 0.0)) == [SCHEDULER]
    return logic


def asked(effects: list) -> list[bytes]:
    """Which schedulers a request is submitted to."""
    return [e.peer for e in effects if isinstance(e, Send) and isinstance(e.message, Submit)]


def test_a_scheduler_that_does_not_answer_within_a_heartbeat_is_not_asked_alone():
    logic = two_schedulers()
    assert asked(run_timers(logic, 0.0, 0.4)) == []
    assert asked(run_timers(logic, 0.4, 0.7)) == [SCHEDULER, STANDBY]
    logic.on_message(STANDBY, placed("gpu0", 77), 0.8)
    logic.on_message(GPU0, finished(0), 0.9)
    generate = Generate("s", "chat", 0, 0, 8, 0.0, text="hello")
    assert asked(logic.start(Job(Submit("s", "chat", 3, 8), generate), 1.0)) == [STANDBY]


def test_a_scheduler_whose_connection_breaks_is_noticed_at_once_but_not_over_and_over():
    logic = two_schedulers()
    assert asked(logic.on_scheduler_closed(0.1)) == [SCHEDULER, STANDBY]
    assert asked(logic.on_scheduler_closed(0.11)) == []
