"""The scheduler and the consolidator: orders passed on, GPUs left alone, and when they are not."""

import dataclasses

import pytest

from festina.config import Config, ConsolidatorConfig, DeploymentConfig, LinkConfig
from festina.errors import OverloadedError
from festina.messages import (
    Cluster,
    Consolidation,
    Direct,
    Directed,
    Drain,
    GetCluster,
    Load,
    Migrate,
    MoveTarget,
    Park,
    Placed,
    Refused,
    Register,
    Submit,
    Summary,
    Wake,
)
from festina.runtime.protocol.scheduler import SchedulerLogic
from festina.types import GpuSummary, Provenance, Slo

CONFIG = Config(
    deployments=(DeploymentConfig(name="chat", weights="w", context_tokens=100),),
    link=LinkConfig(heartbeat_s=0.5, missed_max=4),
    consolidator=ConsolidatorConfig(dwell_s=60.0),
)
CLIENT, OPERATOR = b"client", b"operator"
NAMES = ("a", "b", "c")


@dataclasses.dataclass(frozen=True)
class Found:
    slot: int
    on_time: bool
    action: str


class PickyView:
    """Places on the first slot that is open; those in `late` are late, those in `full` full."""

    def __init__(self):
        self.slots = {}
        self.late = set()
        self.full = set()
        self.parked = set()

    def add_gpu(self, name, *_):
        slot = len(self.slots)
        self.slots[slot] = name
        return slot

    def remove_gpu(self, slot):
        del self.slots[slot]

    def update(self, slot, summary):
        (self.parked.add if summary.parked else self.parked.discard)(slot)

    def place(self, model, input_tokens, max_tokens, slo, exclude=()):
        usable = [slot for slot in self.slots if slot not in exclude and slot not in self.full]
        if not usable:
            raise OverloadedError("full", retry_after_ms=1)
        slot = next((slot for slot in usable if slot not in self.late), usable[0])
        return Found(slot, slot not in self.late, "wake" if slot in self.parked else "run")

    def reserve(self, *_):
        pass

    def expire(self, now):
        return 0


def told(logic, name, now, seq, **fields):
    base = {"parked": False, "draining": False, "settled_s": 1e6} | fields
    gpu = GpuSummary(
        seq, 0, 0, 8, 8, 0.0, 0, 0, 0, 0.0, Provenance.MODELLED, 0.0, base["parked"],
        draining=base["draining"], settled_s=base["settled_s"],
    )  # fmt: skip
    logic.on_message(name.encode(), Summary(name, 1, gpu), now)


@pytest.fixture
def view():
    return PickyView()


@pytest.fixture
def logic(view):
    logic = SchedulerLogic(CONFIG, view, 900)
    for name in NAMES:
        register = Register(name, 1, f"tcp://{name}:1", "k", 8, (345, 1980), 10**9, ("chat",))
        logic.on_message(name.encode(), register, 0.0)
        told(logic, name, 0.0, 1)
    return logic


def direct(logic, order, plan=1, agent="a", now=0.0, epoch=1):
    sends = logic.on_message(OPERATOR, Direct(plan, agent, epoch, order), now)
    answer = sends[-1].message
    assert isinstance(answer, Directed)
    assert sends[-1].peer == OPERATOR
    passed = [(send.peer.decode(), send.message) for send in sends[:-1]]
    return passed, answer.error


def submit(logic, now, name="r"):
    sends = logic.on_message(CLIENT, Submit(name, "chat", 10, 10, Slo(1e3, 1e2)), now)
    answer = sends[-1].message
    orders = [(send.peer.decode(), send.message) for send in sends[:-1]]
    return (answer.agent if isinstance(answer, Placed) else answer), orders


@pytest.mark.parametrize("order", [Drain(1000), Park(), Wake(), Load("chat")])
def test_an_order_is_passed_on_and_answered(logic, order):
    assert direct(logic, order) == ([("a", order)], None)


def test_a_move_names_the_keys_of_all_its_targets(logic):
    for name in ("b", "c"):
        key = f"key of {name}"
        register = Register(name, 2, f"tcp://{name}:1", "k", 8, (), 10**9, ("chat",), key)
        logic.on_message(name.encode(), register, 0.1)
    unknown = MoveTarget("x", 1, "tcp://x:1", 3, "key of x")
    others = (MoveTarget("c", 2, "tcp://c:1", 3), unknown)
    order = Migrate("chat", "b", 2, "tcp://b:1", room=1, others=others)
    ((agent, passed),), error = direct(logic, order)
    assert (agent, error) == ("a", None)
    assert passed.server_key == "key of b"
    assert passed.others == (MoveTarget("c", 2, "tcp://c:1", 3, "key of c"), unknown)


@pytest.mark.parametrize(("agent", "epoch"), [("nobody", 1), ("a", 2)])
def test_an_order_for_an_agent_that_is_not_there_is_refused(logic, agent, epoch):
    passed, error = direct(logic, Park(), agent=agent, epoch=epoch)
    assert passed == []
    assert error.code == "agent_lost"


def test_what_is_emptied_gets_no_request(logic):
    assert submit(logic, 0.0) == ("a", [])
    direct(logic, Drain(1000))
    assert submit(logic, 0.1, "s")[0] == "b"
    assert submit(logic, 0.9, "t")[0] == "b"
    for name in NAMES:
        told(logic, name, 1.05, 2)
    logic.on_timer(1.1)
    assert submit(logic, 1.1, "u")[0] == "a", "the lease has run out"


def test_a_new_scheduler_learns_from_summaries_who_is_emptied(logic):
    told(logic, "a", 0.1, 2, draining=True)
    assert submit(logic, 0.2)[0] == "b"
    told(logic, "a", 0.3, 3)
    assert submit(logic, 0.3, "s")[0] == "a"


def test_one_that_would_be_in_time_there_alone_ends_the_drain(logic, view):
    direct(logic, Drain(10_000))
    view.late = {1, 2}
    assert submit(logic, 0.1) == ("a", [("a", Drain(0))])
    for order in (Drain(10_000), Park()):
        passed, error = direct(logic, order, now=0.2)
        assert passed == []
        assert error.code == "needed"
    told(logic, "a", 0.2, 2, draining=True)  # which it said before it heard of that
    view.late = set()
    assert submit(logic, 0.3, "s")[0] == "a"
    assert direct(logic, Drain(10_000), plan=2, now=0.4)[1] is None


def test_one_that_is_late_everywhere_is_late_elsewhere(logic, view):
    direct(logic, Drain(10_000))
    view.late = {0, 1, 2}
    assert submit(logic, 0.1) == ("b", [])


def test_one_that_would_be_refused_goes_to_what_is_emptied(logic, view):
    direct(logic, Drain(10_000))
    view.full, view.late = {1, 2}, {0}
    assert submit(logic, 0.1) == ("a", [("a", Drain(0))])
    view.full = {0, 1, 2}
    answer, _ = submit(logic, 0.2, "s")
    assert isinstance(answer, Refused)


def test_a_plan_that_is_given_up_opens_the_gpu(logic):
    direct(logic, Drain(10_000))
    direct(logic, Drain(0), now=0.1)
    assert submit(logic, 0.2)[0] == "a"


def test_a_gpu_that_has_just_parked_is_woken_only_rather_than_refuse(logic, view):
    told(logic, "a", 0.1, 2, parked=True, settled_s=0.0)
    view.late = {1, 2}
    assert submit(logic, 0.2)[0] == "b", "late, but the GPU would wake and park over and over"
    view.full = {1, 2}
    assert submit(logic, 0.3, "s") == ("a", [("a", Wake()), ("a", Load("chat"))])
    view.full = set()
    told(logic, "a", 61.0, 3, parked=True, settled_s=61.0)
    assert submit(logic, 61.0, "t")[0] == "a"


def test_whoever_looks_is_told_what_the_consolidator_said_last(logic):
    said = Consolidation(7, "festina", "watching")
    logic.on_message(OPERATOR, said, 1.0)

    def look(now):
        (send,) = logic.on_message(CLIENT, GetCluster(), now)
        assert isinstance(send.message, Cluster)
        return send.message

    assert look(1.5).consolidation == said
    assert look(4.0).consolidation is None, "it has been silent for too long"
    agent = look(1.5).agents[0]
    assert (agent.endpoint, agent.clock_least_mhz, agent.clock_most_mhz) == ("tcp://a:1", 345, 1980)
