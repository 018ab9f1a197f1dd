"""The scheduler: who may join, what is placed, what is refused and why, what is forgotten."""

import math
from dataclasses import dataclass, field

import pytest

from festina.config import Config, DeploymentConfig, LinkConfig, SchedulerConfig
from festina.errors import InfeasibleError, ProtocolError
from festina.messages import (
    Accepted,
    Cluster,
    Failed,
    GetCluster,
    Leave,
    Load,
    Ping,
    Placed,
    Pong,
    Refused,
    Register,
    Reregister,
    Submit,
    Summary,
    Tokens,
    Twin,
    Wake,
    Welcome,
)
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.pair import Pair
from festina.runtime.protocol.scheduler import PEERS, SchedulerLogic
from festina.types import GpuSummary, Provenance, Slo

EPOCH = 900
SLO = Slo(500.0, 50.0)
CONFIG = Config(
    deployments=(DeploymentConfig(name="chat", weights="w", slo=SLO, context_tokens=100),),
    link=LinkConfig(heartbeat_s=0.5, missed_max=4),
    scheduler=SchedulerConfig(reservation_s=2.0),
)
CLIENT, AGENT = b"client", b"agent"


@dataclass(frozen=True)
class FakeDecision:
    slot: int
    action: str = "run"
    on_time: bool = True


@dataclass
class FakeView:
    """Places on the lowest slot that has room for another reservation."""

    room: int = 10
    action: str = "run"
    slots: dict[int, str] = field(default_factory=dict)
    reservations: dict[int, tuple[int, float]] = field(default_factory=dict)
    asked: list[tuple] = field(default_factory=list)

    def add_gpu(self, name, device_kind, sms_total, clocks_mhz, memory_bytes, models):
        slot = next(i for i in range(1000) if i not in self.slots)
        self.slots[slot] = name
        return slot

    def remove_gpu(self, slot):
        del self.slots[slot]
        self.reservations = {t: r for t, r in self.reservations.items() if r[0] != slot}

    def update(self, slot, summary):
        for ticket in summary.tickets:
            self.reservations.pop(ticket, None)

    def place(self, model, input_tokens, max_tokens, slo, exclude=()):
        self.asked.append((model, input_tokens, max_tokens, slo))
        for slot in sorted(self.slots):
            held = sum(1 for at, _ in self.reservations.values() if at == slot)
            if slot not in exclude and held < self.room:
                return FakeDecision(slot, self.action)
        raise InfeasibleError("no room", field="slo.ttft_ms")

    def reserve(self, slot, ticket, model, input_tokens, now, max_tokens=0):
        self.reservations[ticket] = (slot, now)

    def expire(self, now):
        due = [t for t, (_, at) in self.reservations.items() if now - at >= 2.0]
        for ticket in due:
            del self.reservations[ticket]
        return len(due)


def register(name: str = "gpu0", epoch: int = 5) -> Register:
    return Register(name, epoch, f"tcp://127.0.0.1:{epoch}", "cpu", 1, (), 1, ("chat",))


def summary(
    name: str = "gpu0", epoch: int = 5, tickets: tuple[int, ...] = (), seq: int = 1
) -> Summary:
    gpu = GpuSummary(
        seq, 0, 0, 1, 1, 0.0, 100, 100, 1, 5.0, Provenance.MODELLED, 0.0, False, (), tickets
    )
    return Summary(name, epoch, gpu)


def submit(name: str = "r", **changes: object) -> Submit:
    fields = {"model": "chat", "input_tokens": 10, "max_tokens": 20, **changes}
    return Submit(name, **fields)


@pytest.fixture
def view() -> FakeView:
    return FakeView()


@pytest.fixture
def empty(view: FakeView) -> SchedulerLogic:
    return SchedulerLogic(CONFIG, view, EPOCH)


@pytest.fixture
def logic(empty: SchedulerLogic) -> SchedulerLogic:
    """A scheduler with one agent."""
    empty.on_message(AGENT, register(), 0.0)
    empty.on_message(AGENT, summary(), 0.0)
    return empty


def only(sends: list[Send]) -> object:
    (send,) = sends
    assert send.link == PEERS
    return send.message


def refusal(logic: SchedulerLogic, request: Submit, now: float = 0.0):
    refused = only(logic.on_message(CLIENT, request, now))
    assert isinstance(refused, Refused)
    assert refused.request_id == request.request_id
    return refused.error


def test_a_request_is_sent_to_its_agent_and_reserved(logic: SchedulerLogic, view: FakeView):
    (send,) = logic.on_message(CLIENT, submit(), 0.0)
    placed = send.message
    assert send.peer == CLIENT
    assert placed == Placed("r", "gpu0", 5, "tcp://127.0.0.1:5", placed.ticket)
    assert view.reservations == {placed.ticket: (0, 0.0)}
    assert view.asked == [("chat", 10, 20, SLO)]


def test_a_request_may_bring_its_own_objectives(logic: SchedulerLogic, view: FakeView):
    logic.on_message(CLIENT, submit(slo=Slo(1.0, 2.0)), 0.0)
    assert view.asked[0][3] == Slo(1.0, 2.0)


@pytest.mark.parametrize("action", ["load", "wake"])
def test_an_agent_is_told_to_load_before_the_request_goes_there(
    logic: SchedulerLogic, view: FakeView, action: str
):
    view.action = action
    *orders, placed = logic.on_message(CLIENT, submit(), 0.0)
    assert all(order.peer == AGENT for order in orders)
    told = [Wake(), Load("chat")] if action == "wake" else [Load("chat")]
    assert [order.message for order in orders] == told
    assert isinstance(placed.message, Placed)


@pytest.mark.parametrize(
    ("request_", "code", "field_"),
    [
        (submit(model="other"), "unknown_model", "model"),
        (submit(input_tokens=0), "bad_request", "input_tokens"),
        (submit(max_tokens=0), "bad_request", "max_tokens"),
        (submit(input_tokens=90), "context_limit", "input_tokens"),
        (submit(max_tokens=100), "context_limit", "max_tokens"),
        (submit(max_tokens=100, estimated=True), "context_limit", "max_tokens"),
        (submit(slo=Slo(-1.0, 50.0)), "bad_request", "slo.ttft_ms"),
        (submit(slo=Slo(0.0, 50.0)), "bad_request", "slo.ttft_ms"),
        (submit(slo=Slo(500.0, math.nan)), "bad_request", "slo.tbt_ms"),
        (submit(slo=Slo(500.0, math.inf)), "bad_request", "slo.tbt_ms"),
    ],
)
def test_a_request_that_is_wrong_is_refused_by_field(
    logic: SchedulerLogic, view: FakeView, request_: Submit, code: str, field_: str
):
    error = refusal(logic, request_)
    assert (error.code, error.field) == (code, field_)
    assert error.expected
    assert view.asked == []


def test_a_long_estimate_alone_refuses_nothing(logic: SchedulerLogic, view: FakeView):
    placed = only(logic.on_message(CLIENT, submit(input_tokens=90, estimated=True), 0.0))
    assert isinstance(placed, Placed)
    assert view.asked[0][1] == 80


def test_what_the_view_refuses_is_passed_on(logic: SchedulerLogic, view: FakeView):
    view.room = 0
    assert refusal(logic, submit()).code == "infeasible"


def test_without_agents_a_client_is_told_when_to_come_back(empty: SchedulerLogic):
    error = refusal(empty, submit())
    assert error.code == "overloaded"
    assert error.retry_after_ms == CONFIG.scheduler.retry_after_ms


def test_an_excluded_agent_is_not_used(logic: SchedulerLogic):
    request = submit(exclude=("gpu0", "unknown"))
    assert refusal(logic, request).code == "infeasible"


def test_a_repeated_submit_gets_the_same_answer_while_reserved(
    logic: SchedulerLogic, view: FakeView
):
    first = only(logic.on_message(CLIENT, submit(), 0.0))
    assert only(logic.on_message(CLIENT, submit(), 1.0)) == first
    assert len(view.reservations) == 1
    logic.on_message(AGENT, summary(), 2.4)
    logic.on_timer(2.5)
    assert view.reservations == {}
    again = only(logic.on_message(CLIENT, submit(), 2.5))
    assert again.ticket != first.ticket


def test_a_request_whose_agent_refused_it_is_placed_anew_when_it_is_tried_again(
    logic: SchedulerLogic,
):
    first = only(logic.on_message(CLIENT, submit(), 0.0))
    logic.on_message(AGENT, summary(tickets=(first.ticket,)), 0.1)
    second = only(logic.on_message(CLIENT, submit(), 0.2))
    assert second.ticket != first.ticket
    third = only(logic.on_message(CLIENT, submit(max_tokens=5), 0.3))
    logic.on_message(AGENT, summary(tickets=(third.ticket, 7)), 0.4)
    logic.on_timer(9.0)
    assert third.ticket != second.ticket


def test_the_same_name_from_another_client_or_with_other_content_is_another_request(
    logic: SchedulerLogic,
):
    tickets = {
        only(logic.on_message(peer, request, 0.0)).ticket
        for peer, request in (
            (CLIENT, submit()),
            (b"other", submit()),
            (CLIENT, submit(max_tokens=5)),
        )
    }
    assert len(tickets) == 3


def test_a_repeated_submit_is_placed_anew_if_its_agent_was_restarted(logic: SchedulerLogic):
    first = only(logic.on_message(CLIENT, submit(), 0.0))
    logic.on_message(AGENT, register(epoch=6), 0.1)
    logic.on_message(AGENT, summary(epoch=6), 0.1)
    again = only(logic.on_message(CLIENT, submit(), 0.2))
    assert (first.epoch, again.epoch) == (5, 6)


def test_tickets_of_a_later_scheduler_are_larger(view: FakeView, logic: SchedulerLogic):
    """A client takes none below one that it gave up; epochs are microseconds."""
    view.room = 1000
    tickets = [only(logic.on_message(CLIENT, submit(f"r{n}"), 0.0)).ticket for n in range(500)]
    later = SchedulerLogic(CONFIG, FakeView(), EPOCH + 500)
    later.on_message(AGENT, register(), 0.0)
    assert only(later.on_message(CLIENT, submit(), 0.0)).ticket > max(tickets)


def test_an_agent_is_welcomed(empty: SchedulerLogic, view: FakeView):
    assert only(empty.on_message(AGENT, register(), 0.0)) == Welcome(EPOCH)
    assert view.slots == {0: "gpu0"}


def test_registering_again_changes_nothing_but_the_way_back(logic: SchedulerLogic, view: FakeView):
    logic.on_message(CLIENT, submit(), 0.0)
    assert only(logic.on_message(b"reconnected", register(), 1.0)) == Welcome(EPOCH)
    assert len(view.reservations) == 1
    view.action = "load"
    load, _ = logic.on_message(CLIENT, submit("s"), 1.0)
    assert load.peer == b"reconnected"


def test_a_scheduler_that_was_restarted_asks_agents_to_register(empty: SchedulerLogic):
    assert only(empty.on_message(AGENT, summary(), 0.0)) == Reregister(EPOCH)


def test_an_agent_of_an_older_epoch_cannot_take_the_name_back(
    logic: SchedulerLogic, view: FakeView
):
    logic.on_message(AGENT, register(epoch=6), 0.0)
    answer = only(logic.on_message(b"old", register(epoch=5), 0.1))
    assert isinstance(answer, Failed)
    assert answer.error.field == "agent"
    assert only(logic.on_message(b"old", summary(epoch=5), 0.1)) == Reregister(EPOCH)
    assert view.slots == {0: "gpu0"}


def test_an_agent_that_is_silent_is_dropped(logic: SchedulerLogic, view: FakeView):
    logic.on_timer(1.9)
    assert view.slots == {0: "gpu0"}
    logic.on_timer(2.5)
    assert view.slots == {}
    assert refusal(logic, submit(), 2.5).code == "overloaded"


def test_a_summary_keeps_an_agent_alive(logic: SchedulerLogic, view: FakeView):
    for tenth in range(1, 100):
        logic.on_message(AGENT, summary(), tenth / 10)
        logic.on_timer(tenth / 10)
    assert view.slots == {0: "gpu0"}


def test_an_agent_that_leaves_is_dropped_at_once(logic: SchedulerLogic, view: FakeView):
    assert logic.on_message(AGENT, Leave("gpu0", 4), 0.1) == []
    assert view.slots == {0: "gpu0"}
    assert logic.on_message(AGENT, Leave("gpu0", 5), 0.1) == []
    assert logic.on_message(AGENT, Leave("gpu0", 5), 0.1) == []
    assert view.slots == {}


def test_a_ticket_in_a_summary_releases_its_reservation(logic: SchedulerLogic, view: FakeView):
    placed = only(logic.on_message(CLIENT, submit(), 0.0))
    logic.on_message(AGENT, summary(tickets=(placed.ticket,)), 0.1)
    assert view.reservations == {}


def test_a_summary_that_was_overtaken_changes_nothing(logic: SchedulerLogic):
    logic.on_message(AGENT, summary(seq=3), 0.1)
    logic.on_message(AGENT, summary(seq=2), 0.2)
    cluster = only(logic.on_message(CLIENT, GetCluster(), 0.2))
    assert [(agent.summary.seq, agent.silent_ms) for agent in cluster.agents] == [(3, 0.0)]


def test_a_summary_that_was_overtaken_does_not_change_the_way_back(
    logic: SchedulerLogic, view: FakeView
):
    logic.on_message(b"reconnected", summary(seq=3), 0.1)
    logic.on_message(AGENT, summary(seq=2), 0.2)
    view.action = "load"
    load, _ = logic.on_message(CLIENT, submit(), 0.3)
    assert load.peer == b"reconnected"


def test_many_agents_are_told_to_say_less(empty: SchedulerLogic):
    assert only(empty.on_message(CLIENT, Ping(7), 0.0)).summary_ms == 0.0
    for number in range(1000):
        answer = only(empty.on_message(b"%d" % number, register(f"gpu{number}"), 0.0))
    assert answer == Welcome(EPOCH, 100.0)
    assert only(empty.on_message(CLIENT, Ping(7), 0.0)) == Pong(7, EPOCH, 100.0)


def test_a_ping_is_answered_with_the_epoch(empty: SchedulerLogic):
    assert only(empty.on_message(CLIENT, Ping(7), 0.0)) == Pong(7, EPOCH)


def test_the_cluster_is_told(logic: SchedulerLogic):
    logic.on_message(CLIENT, submit(), 0.0)
    logic.on_message(CLIENT, submit(model="other"), 0.0)
    cluster = only(logic.on_message(CLIENT, GetCluster(), 0.25))
    assert isinstance(cluster, Cluster)
    assert (cluster.placed, cluster.refused) == (1, 1)
    assert [d.model for d in cluster.deployments] == ["chat"]
    assert [(a.agent, a.device, a.silent_ms) for a in cluster.agents] == [("gpu0", "cpu", 250.0)]


def test_what_is_not_for_a_scheduler_is_answered_with_a_typed_error(logic: SchedulerLogic):
    for wrong in (ProtocolError("rubbish"), Accepted("r", 1), Tokens("r", 0, (1,), "")):
        answer = only(logic.on_message(CLIENT, wrong, 0.0))
        assert isinstance(answer, Failed)
        assert answer.error.code == "protocol"


def test_errors_are_not_answered_with_errors(logic: SchedulerLogic):
    failed = Failed("", ProtocolError("?").info())
    assert logic.on_message(CLIENT, failed, 0.0) == []
    assert logic.on_message(CLIENT, Refused("r", failed.error), 0.0) == []


def test_an_agent_that_is_silent_gets_nothing_new_until_it_is_heard_again(logic: SchedulerLogic):
    logic.on_message(b"other", register("gpu1", 6), 0.0)
    assert only(logic.on_message(CLIENT, submit("a"), 0.0)).agent == "gpu0"
    for tenth in range(15):  # three heartbeats
        now = tenth / 10
        logic.on_message(b"other", summary("gpu1", 6), now)
        logic.on_timer(now)
    assert only(logic.on_message(CLIENT, submit("b"), 1.5)).agent == "gpu1"
    logic.on_message(AGENT, summary(), 1.6)
    assert only(logic.on_message(CLIENT, submit("c"), 1.6)).agent == "gpu0"


def test_where_all_agents_are_silent_clients_are_told_to_come_back(logic: SchedulerLogic):
    for tenth in range(15):
        logic.on_timer(tenth / 10)
    error = refusal(logic, submit(), 1.5)
    assert error.code == "overloaded"
    assert error.retry_after_ms > 0


def test_another_try_of_a_request_is_not_answered_with_the_first_one(logic: SchedulerLogic):
    first = only(logic.on_message(CLIENT, submit(), 0.0))
    second = only(logic.on_message(CLIENT, submit(input_tokens=12), 0.1))
    again = only(logic.on_message(CLIENT, submit(), 0.2))
    assert first.ticket < second.ticket < again.ticket


@pytest.fixture
def waiting(view: FakeView) -> SchedulerLogic:
    """A standby that knows an agent."""
    pair = Pair(standby=True, link=CONFIG.link, epoch=EPOCH, now=0.0)
    logic = SchedulerLogic(CONFIG, view, EPOCH, pair)
    logic.on_message(AGENT, register(), 0.0)
    logic.on_message(AGENT, summary(), 0.0)
    return logic


def test_a_standby_knows_the_cluster_and_answers_no_client(waiting: SchedulerLogic):
    assert waiting.on_message(CLIENT, submit(), 0.1) == []
    cluster = only(waiting.on_message(CLIENT, GetCluster(), 0.1))
    assert [agent.agent for agent in cluster.agents] == ["gpu0"]


def test_a_standby_that_takes_over_answers_those_who_came_meanwhile(waiting: SchedulerLogic):
    waiting.on_message(b"", Twin(1, False, active=True, term=1, ticket=10**6), 0.0)
    answers = []
    for tick in range(8):
        now = 0.125 * (tick + 1)
        if tick == 4:
            waiting.on_message(CLIENT, submit(), now)
        answers += [send for send in waiting.on_timer(now) if send.link == PEERS]
    (send,) = answers
    assert send.peer == CLIENT
    assert isinstance(send.message, Placed)
    assert send.message.ticket > 10**6
    assert waiting.active
