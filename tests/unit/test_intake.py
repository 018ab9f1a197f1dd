"""What a scheduler takes first when it falls behind, and that nothing is lost or reordered."""

from collections import deque
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from festina.account import Account
from festina.config import Config, DeploymentConfig, LinkConfig
from festina.errors import ProtocolError
from festina.messages import Leave, Ping, Pong, Register, Reregister, Submit, Summary
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.intake import (
    SUMMARIES_MAX,
    TICKETS_MAX,
    Intake,
    merge,
)
from festina.runtime.protocol.scheduler import SchedulerLogic
from festina.runtime.scheduler import BURST_MAX, bursts
from festina.types import GpuSummary, Provenance, Slo

PEERS = (b"p0", b"p1", b"p2")


def summary(seq=1, agent="gpu0", epoch=5, tickets=(), account=None):
    gpu = GpuSummary(
        seq, 0, 0, 1, 1, 0.0, 100, 100, 1, 5.0, Provenance.MODELLED, 0.0, False, (), tickets
    )
    return Summary(agent, epoch, gpu, account)


class Recorder:
    """A logic that notes what it is told, in order."""

    def __init__(self):
        self.taken = []
        self.heard = []

    def on_message(self, peer, message, now):
        self.taken.append((peer, message))
        return [Send("peers", peer, Pong(0, 0))] if isinstance(message, Submit) else []

    def hear(self, peers, merged, now):
        self.heard.append((set(peers), merged))

    def of(self, peer):
        return [message for sender, message in self.taken if sender == peer]


def told(messages):
    """What one peer's messages tell, and what was known before each that is no summary.

    The last state and account of each agent and epoch, and all tickets, each in its place.
    """
    states, accounts, tickets, events = {}, {}, [], []
    for message in messages:
        if isinstance(message, Summary):
            name = message.agent, message.epoch
            states[name] = replace(message.gpu, tickets=())
            accounts[name] = message.account or accounts.get(name)
            tickets += message.gpu.tickets
        else:
            events.append((message, dict(states), dict(accounts), list(tickets)))
    return events, states, accounts, tickets


summaries = st.builds(
    summary,
    seq=st.integers(1, 5),
    agent=st.sampled_from(["gpu0", "gpu0", "gpu0", "gpu1"]),
    epoch=st.sampled_from([5, 5, 5, 6]),
    tickets=st.lists(st.integers(1, 99), max_size=3).map(tuple),
    account=st.none() | st.builds(Account, idle_j=st.floats(0, 9)),
)
others = st.sampled_from(
    [
        Register("gpu0", 5, "tcp://127.0.0.1:5", "cpu", 1, (), 1, ("chat",)),
        Leave("gpu0", 5),
        Ping(1),
        Submit("r", "chat", 1, 1),
        ProtocolError("rubbish"),
    ]
)
streams = st.lists(st.tuples(st.sampled_from(PEERS), summaries | summaries | others), max_size=60)


@given(streams, st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=20))
def test_each_peer_is_heard_whole_and_in_order(stream, turns):
    logic = Recorder()
    intake, left = Intake(logic), iter(stream)
    for count, catches_up in [*turns, (len(stream), True)]:
        intake.serve(islice(left, count), 0.0)
        if catches_up:
            intake.catch_up(0.0)
    assert not intake.behind
    for peer in PEERS:
        assert told(logic.of(peer)) == told([sent for sender, sent in stream if sender == peer])


@given(streams)
def test_what_is_no_summary_is_taken_at_once(stream):
    logic = Recorder()
    Intake(logic).serve(stream, 0.0)
    kept = [item for item in logic.taken if not isinstance(item[1], Summary)]
    assert kept == [item for item in stream if not isinstance(item[1], Summary)]


def test_summaries_that_wait_are_one():
    logic = Recorder()
    intake = Intake(logic)
    past = Account(idle_j=3.0)
    intake.serve([(b"a", summary(1, tickets=(7, 8), account=past))], 0.0)
    intake.serve([(b"a", summary(2)), (b"a", summary(3, tickets=(9,)))], 0.1)
    intake.catch_up(0.2)
    assert logic.taken == [(b"a", summary(3, tickets=(7, 8, 9), account=past))]


def test_who_waits_and_how_many_were_merged_is_told():
    logic = Recorder()
    intake = Intake(logic)
    intake.serve([(b"a", summary(1)), (b"a", summary(2)), (b"b", summary(1))], 0.0)
    intake.report(0.0)
    intake.catch_up(0.0)
    intake.report(0.1)
    assert logic.heard == [({b"a", b"b"}, 1), (set(), 0)]


def test_a_later_account_takes_the_place_of_an_earlier_one():
    earlier, later = Account(idle_j=3.0), Account(idle_j=4.0)
    both = merge(summary(1, account=earlier), summary(2, account=later))
    assert both == summary(2, account=later)


def test_summaries_of_another_process_or_out_of_order_stay_apart():
    assert merge(summary(2), summary(3, epoch=6)) is None
    assert merge(summary(2), summary(3, agent="gpu1")) is None
    assert merge(summary(3), summary(2)) is None


def test_a_summary_that_waits_holds_a_bounded_number_of_tickets():
    logic = Recorder()
    intake = Intake(logic)
    sent = [tuple(range(first, first + 1000)) for first in range(1, 20_000, 1000)]
    for seq, tickets in enumerate(sent):
        intake.serve([(b"a", summary(seq, tickets=tickets))], 0.0)
    intake.catch_up(0.0)
    taken = [message.gpu.tickets for message in logic.of(b"a")]
    assert max(map(len, taken)) <= TICKETS_MAX
    assert sum(taken, ()) == sum(sent, ())


def test_who_has_waited_longest_is_taken_first_and_only_so_many_at_once():
    logic = Recorder()
    intake = Intake(logic)
    peers = [str(number).encode() for number in range(2 * SUMMARIES_MAX)]
    intake.serve([(peer, summary(1)) for peer in peers], 0.0)
    intake.serve([(peer, summary(2)) for peer in reversed(peers)], 0.0)
    intake.catch_up(0.0)
    assert [peer for peer, _ in logic.taken] == peers[:SUMMARIES_MAX]
    assert intake.behind
    intake.catch_up(0.0)
    assert [peer for peer, _ in logic.taken] == peers
    assert not intake.behind


class Flood:
    """A link with a backlog of every peer, read as ZeroMQ does: one of each in turn."""

    def __init__(self, backlog):
        self._turns = deque((peer, deque(messages)) for peer, messages in backlog.items())
        self.read = 0

    def receive(self, count_max):
        for _ in range(count_max):
            if not self._turns:
                return
            peer, messages = self._turns.popleft()
            self.read += 1
            yield peer, messages.popleft()
            if messages:
                self._turns.append((peer, messages))


def test_a_flood_of_summaries_delays_a_request_by_less_than_a_burst():
    backlog = {str(n).encode(): [summary(seq) for seq in range(1, 6)] for n in range(1500)}
    logic, flood = Recorder(), Flood(backlog | {b"client": [Submit("r", "chat", 1, 1)]})
    intake = Intake(logic)
    for answers in bursts([flood], intake, 0.0):
        if answers:
            break
    assert logic.taken == [(b"client", Submit("r", "chat", 1, 1))]
    assert flood.read < BURST_MAX


def test_a_burst_ends_though_more_has_come():
    backlog = {b"a": [summary(seq) for seq in range(1, 2 * BURST_MAX)]}
    flood = Flood(backlog)
    assert not any(bursts([flood], Intake(Recorder()), 0.0))
    assert flood.read == BURST_MAX


CONFIG = Config(
    deployments=(DeploymentConfig(name="chat", weights="sim:llama-8b", slo=Slo(5000.0, 200.0)),),
    link=LinkConfig(heartbeat_s=0.5, missed_max=4),
)


class OneSlot:
    """A view of one GPU that takes all."""

    def __getattr__(self, name):
        return lambda *_: 0


def test_an_agent_whose_summary_waits_is_alive():
    logic = SchedulerLogic(CONFIG, OneSlot(), 1)
    intake = Intake(logic)
    register = Register("gpu0", 5, "tcp://127.0.0.1:5", "cpu", 1, (), 1, ("chat",))
    intake.serve([(b"a", register), (b"a", summary(1))], 0.0)
    intake.catch_up(0.0)
    intake.serve([(b"a", summary(2))], 9.0)
    intake.report(9.0)
    assert logic.on_timer(9.0) == []
    intake.catch_up(9.0)
    intake.report(18.0)
    logic.on_timer(18.0)
    (answer,) = logic.on_message(b"a", summary(3), 18.0)
    assert answer.message == Reregister(1)
