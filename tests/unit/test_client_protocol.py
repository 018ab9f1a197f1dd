"""A client's requests: each ends exactly once, its tokens in order, whatever the wire does."""

import dataclasses
import random

import pytest

from festina.config import LinkConfig
from festina.errors import (
    AgentLostError,
    BadRequestError,
    CancelledError,
    FestinaError,
    FrameTooLargeError,
    InfeasibleError,
    OverloadedError,
    ProtocolError,
    ProtocolVersionError,
    SchedulerLostError,
)
from festina.messages import (
    FRAME_BYTES_MAX,
    Accepted,
    Cancel,
    Cluster,
    Failed,
    Finished,
    Generate,
    GetCluster,
    Ping,
    Placed,
    Pong,
    Probe,
    Refused,
    Submit,
    Tokens,
    encode,
)
from festina.runtime.generation import make_job
from festina.runtime.protocol.client import ClientLogic
from festina.runtime.protocol.client_effects import (
    SCHEDULER,
    ClientLimits,
    Connect,
    Disconnect,
    Tell,
    TellCluster,
)
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.request import Ended, Job
from festina.types import FinishReason, Provenance, Usage

LINK = LinkConfig(heartbeat_s=0.5, missed_max=4)
LIMITS = ClientLimits(
    requests_max=8, answer_timeout_s=5.0, resend_s=1.0, probe_s=2.0, idle_s=10.0, backoff_s=0.5
)
ENDPOINT = "tcp://127.0.0.1:7101"
AGENT = ENDPOINT.encode()


def job(name: str = "r", retries: int = 0) -> Job:
    generate = Generate(name, "chat", 0, 0, 8, 0.0, text="hello")
    return Job(Submit(name, "chat", 3, 8), generate, retries)


def placed(name: str = "r", epoch: int = 5) -> Placed:
    return Placed(name, "gpu0", epoch, ENDPOINT, 77)


def finished(name: str = "r", outputs: int = 0, text: str = "") -> Finished:
    usage = Usage(3, outputs, 0.5, Provenance.MODELLED)
    return Finished(name, FinishReason.LENGTH, usage, text)


def tokens(index: int, count: int = 1, name: str = "r") -> Tokens:
    return Tokens(name, index, tuple(range(index, index + count)), "x" * count)


def told(effects: list) -> list:
    return [effect.event for effect in effects if isinstance(effect, Tell)]


def sent(effects: list) -> list:
    return [effect.message for effect in effects if isinstance(effect, Send)]


@pytest.fixture
def logic() -> ClientLogic:
    return ClientLogic(LINK, LIMITS, random.Random(1))


def accept(logic: ClientLogic) -> ClientLogic:
    """Its request "r" is accepted at time 0."""
    logic.start(job(), 0.0)
    logic.on_message(SCHEDULER, placed(), 0.0)
    logic.on_message(AGENT, Accepted("r", 3), 0.0)
    return logic


@pytest.fixture
def running(logic: ClientLogic) -> ClientLogic:
    """A client whose request "r" was accepted at time 0."""
    return accept(logic)


@pytest.fixture
def faithful() -> ClientLogic:
    """The same, but a request whose stream breaks ends."""
    limits = dataclasses.replace(LIMITS, resumptions_max=0)
    return accept(ClientLogic(LINK, limits, random.Random(1)))


def run_timers(logic: ClientLogic, start: float, until: float) -> list:
    """Effects of all timers in that span."""
    effects = []
    now = start
    while (due := logic.next_timer(now)) is not None and due < until:
        now = max(now + 1e-3, due)
        effects += logic.on_timer(now)
    return effects


def test_a_request_goes_to_the_agent_that_it_was_placed_on(logic: ClientLogic):
    assert logic.start(job(), 1.0) == [Send("scheduler", SCHEDULER, job().submit)]
    connect, send = logic.on_message(SCHEDULER, placed(), 1.25)
    assert connect == Connect(ENDPOINT)
    assert send == Send("agents", AGENT, Generate("r", "chat", 77, 5, 8, 250.0, text="hello"))


def test_the_end_tells_what_the_caller_saw(running: ClientLogic):
    running.on_message(AGENT, tokens(0), 0.5)
    running.on_message(AGENT, tokens(1, 2), 0.6)
    (end,) = told(running.on_message(AGENT, finished(outputs=3, text="!"), 0.7))
    assert isinstance(end, Ended)
    assert (end.agent, end.text, end.reason) == ("gpu0", "!", FinishReason.LENGTH)
    assert end.ttft_ms == pytest.approx(500)
    assert end.gaps_ms == pytest.approx([100])
    assert running.in_flight == 0


def test_tokens_that_came_before_are_dropped_and_counted(running: ClientLogic):
    assert told(running.on_message(AGENT, tokens(0), 0.1)) == [tokens(0)]
    assert running.on_message(AGENT, tokens(0), 0.2) == []
    assert running.counters.duplicates == 1


@pytest.mark.parametrize("later", [tokens(2), tokens(0, 2)])
def test_tokens_out_of_step_end_the_request(faithful: ClientLogic, later: Tokens):
    faithful.on_message(AGENT, tokens(0), 0.1)
    effects = faithful.on_message(AGENT, later, 0.2)
    (error,) = told(effects)
    assert isinstance(error, ProtocolError)
    assert (error.field, error.expected) == ("index", "1")
    assert sent(effects) == [Cancel("r")]
    assert faithful.counters.gaps == 1


def test_an_end_before_all_tokens_came_is_an_error(faithful: ClientLogic):
    faithful.on_message(AGENT, tokens(0), 0.1)
    (error,) = told(faithful.on_message(AGENT, finished(outputs=2), 0.2))
    assert isinstance(error, ProtocolError)
    assert error.field == "usage.output_tokens"


def test_nothing_is_told_after_the_end(running: ClientLogic):
    running.on_message(AGENT, finished(), 0.1)
    for late in (finished(), Failed("r", AgentLostError("?").info())):
        assert told(running.on_message(AGENT, late, 0.2)) == []
    assert running.counters.strays == 2


def test_an_agent_that_streams_a_request_that_has_ended_is_told_to_stop(running: ClientLogic):
    running.cancel("r", 0.1)
    assert running.on_message(AGENT, tokens(0), 0.2) == [Send("agents", AGENT, Cancel("r"))]


def test_a_refusal_is_the_typed_error_that_the_scheduler_gave(logic: ClientLogic):
    logic.start(job(), 0.0)
    refusal = InfeasibleError("no", field="slo.ttft_ms", expected="at least 5")
    (error,) = told(logic.on_message(SCHEDULER, Refused("r", refusal.info()), 0.1))
    assert isinstance(error, InfeasibleError)
    assert error.field == "slo.ttft_ms"


def test_a_refused_request_is_tried_again_as_often_as_its_caller_allows(logic: ClientLogic):
    refusal = Refused("r", OverloadedError("full", retry_after_ms=2000).info())
    logic.start(job(retries=1), 0.0)
    assert logic.on_message(SCHEDULER, refusal, 0.0) == []
    assert run_timers(logic, 0.0, 1.9) == []
    assert sent(run_timers(logic, 1.9, 2.5)) == [job().submit]
    (error,) = told(logic.on_message(SCHEDULER, refusal, 2.5))
    assert isinstance(error, OverloadedError)


def test_a_refusal_that_names_no_time_is_final(logic: ClientLogic):
    logic.start(job(retries=3), 0.0)
    refusal = Refused("r", InfeasibleError("no").info())
    assert len(told(logic.on_message(SCHEDULER, refusal, 0.0))) == 1


def test_a_request_with_tokens_is_never_tried_again(logic: ClientLogic):
    logic.start(job(retries=3), 0.0)
    logic.on_message(SCHEDULER, placed(), 0.0)
    logic.on_message(AGENT, tokens(0), 0.1)
    failure = Failed("r", OverloadedError("full", retry_after_ms=10).info())
    assert len(told(logic.on_message(AGENT, failure, 0.2))) == 1


def test_an_unanswered_submit_is_repeated_and_then_given_up(logic: ClientLogic):
    logic.start(job(), 0.0)
    effects = run_timers(logic, 0.0, 20.0)
    assert sent(effects) == [job().submit] * 4
    (error,) = told(effects)
    assert isinstance(error, SchedulerLostError)
    assert logic.next_timer(20.0) is None


def test_an_unanswered_generate_is_repeated(logic: ClientLogic):
    logic.start(job(), 0.0)
    logic.on_message(SCHEDULER, placed(), 0.0)
    repeated = [m for m in sent(run_timers(logic, 0.0, 1.4)) if isinstance(m, Generate)]
    assert len(repeated) == 1
    assert repeated[0].elapsed_ms == pytest.approx(1000, abs=150)


def answer_pings(logic: ClientLogic, start: float, until: float, *more: object) -> list:
    """Timers in that span, with an agent that answers every ping and every probe with `more`."""
    effects = []
    now = start
    while (due := logic.next_timer(now)) is not None and due < until:
        now = max(now + 1e-3, due)
        for effect in logic.on_timer(now):
            effects.append(effect)
            if isinstance(effect, Send) and isinstance(effect.message, Ping):
                logic.on_message(AGENT, Pong(effect.message.nonce, 5), now)
            if isinstance(effect, Send) and isinstance(effect.message, Probe):
                for message in more:
                    effects += logic.on_message(AGENT, message, now)
    return effects


def test_a_quiet_request_goes_on_while_its_agent_answers_for_it(running: ClientLogic):
    effects = answer_pings(running, 0.0, 60.0, Accepted("r", 3))
    assert running.in_flight == 1
    assert Probe("r") in sent(effects)
    assert all(isinstance(event, Accepted) for event in told(effects))


def test_an_agent_that_forgot_the_request_ends_it(faithful: ClientLogic):
    forgotten = Failed("r", AgentLostError("unknown request").info())
    (error,) = told(answer_pings(faithful, 0.0, 60.0, forgotten))
    assert isinstance(error, AgentLostError)


def test_an_agent_that_ignores_probes_ends_the_request_within_a_bound(faithful: ClientLogic):
    effects = answer_pings(faithful, 0.0, 8.0)
    assert [type(event) for event in told(effects)] == [AgentLostError]
    assert sent(effects)[-1] == Cancel("r")


def test_a_silent_agent_ends_all_its_requests(faithful: ClientLogic):
    faithful.start(job("s"), 0.0)
    faithful.on_message(SCHEDULER, placed("s"), 0.0)
    effects = run_timers(faithful, 0.0, 3.0)
    ended = {e.request_id: type(e.event) for e in effects if isinstance(e, Tell)}
    assert ended == {"r": AgentLostError, "s": AgentLostError}
    assert effects[-1] == Disconnect(ENDPOINT)


def test_a_client_that_was_stopped_for_long_does_not_blame_its_agent(running: ClientLogic):
    (ping,) = sent(running.on_timer(0.2))
    running.on_message(AGENT, Pong(ping.nonce, 5), 100.0)
    assert told(running.on_timer(100.0)) == []


def test_an_agent_that_was_started_anew_has_lost_the_request(faithful: ClientLogic):
    (error,) = told(faithful.on_message(AGENT, Pong(1, 6), 0.5))
    assert isinstance(error, AgentLostError)


def test_an_answer_of_an_older_epoch_changes_nothing(running: ClientLogic):
    assert running.on_message(AGENT, Pong(1, 4), 0.5) == []
    assert running.in_flight == 1


def test_cancelling_ends_the_request_and_tells_the_agent(running: ClientLogic):
    effects = running.cancel("r", 1.0)
    assert sent(effects) == [Cancel("r")]
    assert [type(event) for event in told(effects)] == [CancelledError]
    assert running.cancel("r", 1.1) == []


def test_closing_cancels_everything(running: ClientLogic):
    running.start(job("s"), 0.0)
    assert len(told(running.close(1.0))) == 2
    assert running.in_flight == 0


def test_an_idle_link_is_closed_after_a_while(running: ClientLogic):
    running.on_message(AGENT, finished(), 1.0)
    assert run_timers(running, 1.0, 10.0) == []
    assert run_timers(running, 10.0, 12.0) == [Disconnect(ENDPOINT)]
    assert running.next_timer(12.0) is None


def test_an_id_in_flight_cannot_be_used_again(running: ClientLogic):
    with pytest.raises(BadRequestError):
        running.start(job(), 1.0)


def test_requests_in_flight_are_bounded(logic: ClientLogic):
    for i in range(LIMITS.requests_max):
        logic.start(job(str(i)), 0.0)
    with pytest.raises(OverloadedError):
        logic.start(job("more"), 0.0)


@pytest.mark.parametrize("peer", [SCHEDULER, AGENT])
def test_a_peer_that_cannot_read_us_ends_what_it_has_not_answered(
    running: ClientLogic, peer: bytes
):
    running.start(job("s"), 0.0)
    if peer == AGENT:
        running.on_message(SCHEDULER, placed("s"), 0.0)
    effects = running.on_message(peer, Failed("", ProtocolVersionError("2?").info()), 0.1)
    assert [(e.request_id, type(e.event)) for e in effects] == [("s", ProtocolVersionError)]


def test_a_frame_that_cannot_be_read_is_counted(running: ClientLogic):
    assert running.on_message(AGENT, ProtocolError("?"), 0.1) == []
    assert running.counters.malformed == 1


def test_the_cluster_is_asked_for_until_it_answers_or_is_given_up(logic: ClientLogic):
    assert sent(logic.ask_cluster(0.0)) == [GetCluster()]
    cluster = Cluster(1, (), (), 0, 0)
    assert logic.on_message(SCHEDULER, cluster, 0.1) == [TellCluster(cluster)]
    logic.ask_cluster(1.0)
    *repeats, last = run_timers(logic, 1.0, 20.0)
    assert sent(repeats) == [GetCluster()] * 4
    assert isinstance(last, TellCluster)
    assert isinstance(last.answer, SchedulerLostError)


def test_messages_of_other_kinds_are_strays(running: ClientLogic):
    for peer in (SCHEDULER, AGENT, b"tcp://127.0.0.1:1"):
        assert running.on_message(peer, GetCluster(), 0.1) == []
    assert running.counters.strays == 3
    assert issubclass(ProtocolError, FestinaError)


def test_a_prompt_that_would_outgrow_its_frame_once_placed_is_refused_at_once():
    options = {"max_tokens": 1, "request_id": "r"}
    empty = len(encode(make_job("chat", {**options, "prompt": "x" * 70_000}).generate)) - 70_000
    with pytest.raises(FrameTooLargeError):
        make_job("chat", {**options, "prompt": "x" * (FRAME_BYTES_MAX - empty)})
