"""The consolidator without I/O: one plan at a time, orders said again, plans given up, no swing."""

import itertools
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from festina.config import Config, ConsolidatorConfig, DeploymentConfig
from festina.control.consolidation import ConsolidationRules, Empty, WakeUp
from festina.errors import NeededError
from festina.messages import (
    AgentInfo,
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
    Wake,
)
from festina.runtime.protocol.consolidator import ConsolidatorLogic
from festina.types import GpuSummary, ModelState, ModelSummary, Provenance

CONFIG = Config(
    deployments=(DeploymentConfig(name="m", weights="sim:llama-8b"),),
    consolidator=ConsolidatorConfig(
        look_s=1.0, every_s=2.0, dwell_s=20.0, warmup_s=3.0, lease_s=5.0, patience_s=10.0
    ),
)
EPOCH = 1000


class Planned:
    """A planner that says what a test wants."""

    def __init__(self):
        self.rules = ConsolidationRules()
        self.to_empty = ()
        self.to_wake = None
        self.asked = []
        self.wanted = set()

    def empty(self, gpus, growth_per_s=0.0, wanted=()):
        self.asked.append((gpus, growth_per_s))
        self.wanted = set(wanted)
        return self.to_empty

    def wake(self, gpus, wanted=()):
        return self.to_wake

    def paper(self, gpus, demands):
        self.asked.append((gpus, demands))
        return self.to_empty


def model(name="m", state=ModelState.READY, running=0, total=0):
    return ModelSummary(name, state, running, requests_total=total, input_tokens_total=10 * total)


def agent(name, *models, epoch=1, **fields):
    gpu = GpuSummary(
        1, 0, 0, 8, 8, 0.0, 0, 0, 10**9, fields.pop("power_w", 100.0), Provenance.MODELLED,
        fields.pop("energy_j", 0.0), fields.pop("parked", False), models,
    )  # fmt: skip
    summary = msgspec.structs.replace(gpu, settled_s=fields.pop("settled_s", 100.0), **fields)
    return AgentInfo(name, epoch, "k", 10.0, summary, f"tcp://{name}:1", 10**10, 345, 1980)


class Bench:
    """A logic, and the looks that it is given."""

    def __init__(self, config=CONFIG):
        self.planner = Planned()
        self.logic = ConsolidatorLogic(config, self.planner, EPOCH)
        self.now = 0.0

    def look(self, *agents, after=1.0):
        """Orders after a look at these agents."""
        self.now += after
        asked = self.logic.on_timer(self.now)
        assert [type(send.message) for send in asked] == [GetCluster, Consolidation]
        sends = self.logic.on_message(Cluster(1, (), agents, 0, 0), self.now)
        return [(send.message.agent, send.message.order) for send in sends]

    def warm(self, *agents):
        for _ in range(3):
            assert self.look(*agents) == []

    def report(self):
        return self.logic.report(self.now)

    def kinds(self):
        return [event.kind for event in self.report().events]


@pytest.fixture
def bench():
    return Bench()


MOVE = Empty("a", (("m", "b"),), 10.0, 100.0, 50.0, 1.0, 2.0)


def test_it_looks_before_it_plans(bench):
    bench.planner.to_empty = (MOVE,)
    bench.warm(agent("a"), agent("b"))
    assert bench.planner.asked == []
    assert bench.look(agent("a"), agent("b"))
    assert bench.report().plans == 1


def test_what_does_not_fit_one_gpu_goes_to_others_that_have_the_model_too():
    bench = Bench()
    bench.warm(agent("a", model(running=9)), agent("b"))
    bench.planner.to_empty = (MOVE, Empty("d", (), 10.0, 100.0, 50.0, 1.0, 2.0))
    busy = agent(
        "a", msgspec.structs.replace(model(running=9), context_tokens=9 * 84), draining=True
    )
    there = agent("b", model(), kv_tokens_free=250)
    also = agent("c", model(), kv_tokens_free=1000)
    emptied = agent("d", model(), kv_tokens_free=1000)
    not_ready = agent("e", model(state=ModelState.LOADING), kv_tokens_free=1000)
    parked = agent("f", model(), kv_tokens_free=1000, parked=True)
    leaving = agent("g", model(), kv_tokens_free=1000, draining=True)
    cluster = (busy, there, also, emptied, not_ready, parked, leaving)
    orders = dict(order for order in bench.look(*cluster) if isinstance(order[1], Migrate))
    more = (MoveTarget("c", 1, "tcp://c:1", 10),)
    assert orders == {"a": Migrate("m", "b", 1, "tcp://b:1", room=2, others=more)}


def test_a_gpu_is_drained_its_model_loaded_elsewhere_moved_and_it_is_parked(bench):
    bench.warm(agent("a", model(running=2)), agent("b"))
    bench.planner.to_empty = (MOVE,)
    drain, load, park = ("a", Drain(5000)), ("b", Load("m")), ("a", Park())
    assert bench.look(agent("a", model(running=2)), agent("b")) == [load]
    on_way = agent("b", model(state=ModelState.LOADING))
    busy = agent("a", model(running=2))
    assert bench.look(busy, on_way) == [], "what comes meanwhile is served here, in time"
    busy = agent("a", model(running=2), draining=True)
    migrate = ("a", Migrate("m", "b", 1, "tcp://b:1"))
    there = agent("b", model())
    assert bench.look(busy, there) == [drain, migrate]
    assert bench.look(busy, there) == [drain, migrate], "said again until it is so"
    assert bench.look(agent("a", draining=True, moving=1), there) == [drain]
    assert bench.look(agent("a", model(), draining=True), there) == [drain, park]
    assert bench.look(agent("a", parked=True), there) == []
    assert bench.kinds() == ["empty", "parked"]
    report = bench.report()
    assert (report.parks, report.aborts, bench.logic.running) == (1, 0, ())
    assert report.events[0].expected_j == pytest.approx(10.0 * 100.0 - 53.0)
    assert "m to b" in report.events[0].why


def test_one_plan_at_a_time(bench):
    bench.warm(agent("a"), agent("b"))
    bench.planner.to_empty = (MOVE,)
    for _ in range(5):
        bench.look(agent("a", model(running=1), draining=True), agent("b", model()))
    assert len(bench.planner.asked) == 1


@pytest.mark.parametrize(
    ("first", "then", "why"),
    [
        (agent("a", model(running=1), draining=True), agent("a", model(running=1)), "needed"),
        (agent("a", draining=True), None, "gone"),
        (agent("a", draining=True), agent("a", epoch=2), "gone"),
    ],
)
def test_a_plan_is_given_up_when_its_gpu_is_needed_or_gone(bench, first, then, why):
    bench.warm(agent("a"), agent("b"))
    bench.planner.to_empty = (MOVE,)
    bench.look(first, agent("b", model()))
    bench.planner.to_empty = ()
    left = [agent("b", model())] if then is None else [then, agent("b", model())]
    orders = bench.look(*left)
    assert orders == ([("a", Drain(0))] if why == "needed" else [])
    assert bench.kinds() == ["empty", "aborted"]
    assert why in bench.report().events[-1].why
    assert bench.logic.running == ()


@pytest.mark.parametrize("lost", [None, agent("b", parked=True)])
def test_a_plan_is_given_up_when_nobody_can_take_over(bench, lost):
    bench.warm(agent("a"), agent("b"))
    bench.planner.to_empty = (MOVE,)
    busy = agent("a", model(running=1), draining=True)
    bench.look(busy, agent("b", model()))
    bench.planner.to_empty = ()
    assert bench.look(busy, *([lost] if lost else [])) == [("a", Drain(0))]


def test_a_plan_that_takes_too_long_is_given_up(bench):
    bench.warm(agent("a"), agent("b"))
    bench.planner.to_empty = (MOVE,)
    busy = agent("a", model(running=1), draining=True)
    told = [bench.look(busy, agent("b", model())) for _ in range(11)]
    assert ("a", Drain(0)) in told[-1]
    assert bench.report().aborts == 1


def test_a_refusal_of_the_scheduler_ends_the_plan(bench):
    bench.warm(agent("a"), agent("b"))
    bench.planner.to_empty = (MOVE,)
    bench.look(agent("a"), agent("b", model()))
    error = NeededError("it is needed").info()
    bench.logic.on_message(Directed(EPOCH, "a", error), bench.now)  # of an older plan
    assert bench.look(agent("a"), agent("b", model()))[0] == ("a", Drain(5000))
    bench.logic.on_message(Directed(EPOCH + 1, "a", error), bench.now)
    bench.planner.to_empty = ()
    assert bench.look(agent("a"), agent("b", model())) == [("a", Drain(0))]


def test_stopping_opens_what_is_being_emptied(bench):
    bench.warm(agent("a"), agent("b"))
    bench.planner.to_empty = (MOVE,)
    bench.look(agent("a"), agent("b", model()))
    sends = bench.logic.on_stop(bench.now)
    assert sends[0].message == Direct(EPOCH + 1, "a", 1, Drain(0))


def test_a_gpu_is_woken_until_it_is_awake(bench):
    asleep = agent("z", parked=True)
    bench.warm(agent("a"), asleep)
    bench.planner.to_wake = WakeUp("z", "a")
    assert bench.look(agent("a"), asleep) == [("z", Wake())]
    assert bench.look(agent("a"), asleep) == [("z", Wake())]
    bench.planner.to_wake = None
    assert bench.look(agent("a"), agent("z", settled_s=0.0)) == []
    assert bench.kinds() == ["wake", "woken"]


def test_savings_are_what_the_gpu_drew_less_than_before(bench):
    bench.warm(agent("a"), agent("b"))
    bench.planner.to_empty = (Empty("a", (), 40.0, 100.0),)
    bench.look(agent("a", energy_j=400.0, draining=True), agent("b"))
    bench.look(agent("a", parked=True, energy_j=500.0), agent("b"))
    bench.planner.to_empty = ()
    for second in range(1, 11):
        asleep = agent("a", parked=True, energy_j=500.0 + 60.0 * second, settled_s=float(second))
        bench.look(asleep, agent("b"))
    report = bench.report()
    assert report.saved_j == pytest.approx(10 * (100.0 - 60.0))
    assert report.expected_j == pytest.approx(4000.0 / 100.0 * 10)
    bench.look(agent("a", energy_j=1200.0, settled_s=0.0), agent("b"))
    report = bench.report()
    assert (report.wakes, report.early_wakes) == (1, 1)
    assert report.saved_j == pytest.approx(400.0 + 100.0 - 100.0)
    assert report.events[-1].kind == "ended"
    assert "before its dwell" in report.events[-1].why


def test_demand_is_counted_from_the_summaries(bench):
    for total in (7, 7, 7):
        bench.look(agent("a", model(total=total)), agent("b"))
    bench.look(agent("a", model(total=17)), agent("b", model(total=5)))
    ((gpus, _),) = bench.planner.asked
    of_a, of_b = (gpu.models[0] for gpu in gpus)
    assert of_a.prompts_per_s == pytest.approx(2 * of_b.prompts_per_s)
    assert of_a.prompt_tokens == pytest.approx(10.0)
    assert bench.planner.wanted == {"m"}


def test_who_does_not_answer_is_left_alone(bench):
    mute = msgspec.structs.replace(agent("b"), silent_ms=5000.0)
    bench.warm(agent("a"), mute)
    bench.look(agent("a"), mute)
    ((gpus, _),) = bench.planner.asked
    assert [(gpu.open, gpu.settled) for gpu in gpus] == [(True, True), (False, False)]


def test_the_papers_form_plans_when_a_keep_alive_has_expired():
    settings = msgspec.structs.replace(CONFIG.consolidator, policy="paper")
    bench = Bench(msgspec.structs.replace(CONFIG, consolidator=settings))
    for _ in range(8):
        bench.look(agent("a", model()), agent("b"))
    assert bench.planner.asked == []
    for _ in range(3):
        bench.look(agent("a"), agent("b"))
    assert len(bench.planner.asked) == 1


class Greedy(Planned):
    """Wants to park whatever may be parked, or to wake whatever may be woken, by chance."""

    def __init__(self, seed):
        super().__init__()
        self.rng = random.Random(seed)

    def empty(self, gpus, growth_per_s=0.0, wanted=()):
        found = [gpu for gpu in gpus if gpu.open and gpu.settled]
        return (Empty(self.rng.choice(found).name, (), 1.0, 10.0),) if len(found) > 1 else ()

    def wake(self, gpus, wanted=()):
        found = [gpu for gpu in gpus if gpu.parked and gpu.settled]
        return (
            WakeUp(self.rng.choice(found).name, "a") if found and self.rng.random() < 0.7 else None
        )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), lost=st.floats(0.0, 0.5), deaths=st.booleans())
def test_no_gpu_is_parked_and_woken_again_within_the_dwell(seed, lost, deaths):
    """However eager the planner, whatever is lost, and however often the consolidator restarts."""
    rng = random.Random(seed)
    planner = Greedy(seed)
    logic = ConsolidatorLogic(CONFIG, planner, EPOCH)
    changed = dict.fromkeys("abc", 0.0)
    parked = dict.fromkeys("abc", False)
    drain_until = dict.fromkeys("abc", 0.0)
    changes = {name: [] for name in "abc"}
    for now in map(float, range(1, 400)):
        if deaths and rng.random() < 0.02:
            logic = ConsolidatorLogic(CONFIG, planner, EPOCH + int(now) * 1000)
        if rng.random() < lost:
            continue
        logic.on_timer(now)
        agents = tuple(
            agent(
                name,
                parked=parked[name],
                draining=drain_until[name] > now,
                settled_s=now - changed[name],
            )
            for name in "abc"
        )
        for send in logic.on_message(Cluster(1, (), agents, 0, 0), now):
            name, order = send.message.agent, send.message.order
            if rng.random() < lost:
                continue
            if isinstance(order, Drain):
                drain_until[name] = now + order.lease_ms / 1e3
            elif parked[name] != isinstance(order, Park):
                parked[name] = isinstance(order, Park)
                changed[name] = now
                changes[name].append(now)
    for times in changes.values():
        for before, after in itertools.pairwise(times):
            assert after - before >= CONFIG.consolidator.dwell_s
