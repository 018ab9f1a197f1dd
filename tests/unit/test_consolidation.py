"""Which GPUs to empty and which to wake, in both forms."""

import dataclasses

import pytest

from festina.control.consolidation import (
    ConsolidationPlanner,
    ConsolidationRules,
    Demand,
    GpuNow,
    ModelKind,
    ModelOnGpu,
)
from festina.control.profile import ProfileTable, shipped_profiles
from festina.errors import BadRequestError

KIND = "H100-SXM5-80GB"
MODELS = tuple(
    ModelKind(f"m{number}", shape, 4096, 2000.0, 100.0)
    for number, shape in enumerate(("llama-8b", "llama-3b", "qwen-14b", "llama-8b"))
)


@pytest.fixture(scope="module")
def table():
    return ProfileTable.load(shipped_profiles() / KIND)


@pytest.fixture
def planner(table):
    return ConsolidationPlanner({KIND: table}, MODELS)


def gpu(name, table, *models, **fields):
    return GpuNow(
        name,
        KIND,
        132,
        fields.pop("clock_mhz", 990),
        fields.pop("clocks_mhz", table.clocks_mhz),
        80 << 30,
        fields.pop("free_bytes", 60e9),
        models=models,
        **fields,
    )


def busy(model, running=2, per_s=0.2):
    return ModelOnGpu(model, running, 0, running * 600.0, 100.0, per_s, 500.0)


def test_the_less_busy_gpu_is_emptied_into_the_other_one(planner, table):
    gpus = [gpu("a", table, busy("m0")), gpu("b", table, busy("m1", 1, 0.05))]
    (empty,) = planner.empty(gpus)
    assert (empty.gpu, empty.moves) == ("b", (("m1", "a"),))
    assert empty.saved_w > 0
    expected = empty.saved_w * empty.valley_s - empty.wake_j - empty.moves_j - empty.risk_j
    assert empty.gain_j == pytest.approx(expected)
    assert empty.gain_j > 0


def test_a_gpu_whose_clock_cannot_be_set_saves_its_idle_power(planner, table):
    fixed = {"clock_mhz": 1980, "clocks_mhz": ()}
    gpus = [gpu("a", table, busy("m0"), **fixed), gpu("b", table, **fixed)]
    (empty,) = planner.empty(gpus)
    parked_w = table.model_info("llama-8b").parked_w
    assert empty.gpu == "b"
    assert empty.saved_w == pytest.approx(table.idle_w(1980) - parked_w, rel=1e-3)


@pytest.mark.parametrize("field", ["open", "settled", "loading"])
def test_what_is_not_open_settled_and_quiet_is_left_alone(planner, table, field):
    last = gpu("b", table, **{field: field == "loading"})
    gpus = [gpu("a", table, busy("m0"), settled=False), last]
    assert planner.empty(gpus) == ()


def test_the_last_open_gpu_stays(planner, table):
    assert planner.empty([gpu("a", table)]) == ()
    assert planner.empty([gpu("a", table), gpu("b", table, parked=True, open=False)]) == ()


def test_models_go_where_memory_and_time_are_left(planner, table):
    """`b` has the memory and no time, `c` the time and no memory, `d` both."""
    gpus = [
        gpu("a", table, busy("m0", 1, 0.05)),
        gpu("b", table, busy("m2", 30, 4.0), settled=False),
        gpu("c", table, busy("m1"), free_bytes=1e9, settled=False),
        gpu("d", table, busy("m1"), settled=False),
    ]
    (empty,) = planner.empty(gpus)
    assert empty.moves == (("m0", "d"),)


def test_nothing_is_emptied_where_the_others_would_be_late(planner, table):
    gpus = [gpu("a", table, busy("m0", 30, 6.0)), gpu("b", table, busy("m2", 30, 4.0))]
    assert planner.empty(gpus) == ()


def test_a_load_that_grows_makes_the_valley_short(planner, table):
    gpus = [gpu("a", table, busy("m0", 8, 1.0)), gpu("b", table, busy("m1", 1, 0.05))]
    (steady,) = planner.empty(gpus)
    rising = planner.empty(gpus, growth_per_s=0.05)
    assert steady.valley_s == 300
    assert not rising or rising[0].valley_s < 200
    assert planner.empty(gpus, growth_per_s=10.0) == ()


def test_several_gpus_are_emptied_without_meeting_on_one(table):
    rules = ConsolidationRules(drains=3)
    planner = ConsolidationPlanner({KIND: table}, MODELS, rules)
    gpus = [gpu(name, table, busy("m1", 1, 0.05), free_bytes=9e9) for name in "abcdef"]
    plans = planner.empty(gpus)
    emptied = {plan.gpu for plan in plans}
    assert len(emptied) == len(plans) == 3
    assert all(to not in emptied for plan in plans for _, to in plan.moves)


def test_a_gpu_is_woken_for_a_load_that_does_not_fit(planner, table):
    asleep = gpu("z", table, parked=True, open=False)
    assert planner.wake([gpu("a", table, busy("m0")), asleep]) is None
    full = gpu("a", table, busy("m2", 30, 40.0))
    found = planner.wake([full, asleep])
    assert (found.gpu, found.overloaded) == ("z", "a")
    unsettled = dataclasses.replace(asleep, settled=False)
    assert planner.wake([full, unsettled]) is None


def test_those_that_stay_have_memory_for_all_that_was_asked_for_of_late(planner, table):
    """All four models fill one GPU: loaded elsewhere or not at all, they would take turns."""
    asked = [model.name for model in MODELS]
    idle = [gpu(name, table) for name in "abc"]
    assert len(planner.empty(idle, wanted=asked)) == 1
    twice = tuple(dataclasses.replace(m, name=f"{m.name}-{n}") for m in MODELS for n in (0, 1, 2))
    larger = ConsolidationPlanner({KIND: table}, twice, ConsolidationRules(drains=3))
    several = [gpu(name, table) for name in "abcde"]
    assert len(larger.empty(several)) == 3
    assert len(larger.empty(several, wanted=[m.name for m in twice])) == 2
    assert larger.empty(several[:3], wanted=[m.name for m in twice]) == ()
    assert len(larger.empty(several[:3], wanted=["unknown"])) == 2


def test_a_gpu_is_woken_for_models_that_do_not_fit(planner, table):
    asleep = gpu("z", table, parked=True, open=False)
    small = dataclasses.replace(gpu("a", table), memory_bytes=40 << 30)
    assert planner.wake([small, asleep], wanted=["m0"]) is None
    found = planner.wake([small, asleep], wanted=["m0", "m2", "m3"])
    assert (found.gpu, found.overloaded) == ("z", "")
    assert "memory" in found.why
    running = dataclasses.replace(small, models=(busy("m0"), busy("m2"), busy("m3")))
    assert planner.wake([running, asleep]) is not None
    unsettled = dataclasses.replace(asleep, settled=False)
    assert planner.wake([small, unsettled], wanted=["m0", "m2", "m3"]) is None


def test_no_gpu_is_woken_while_another_one_can_help(planner, table):
    gpus = [
        gpu("a", table, busy("m2", 30, 40.0), busy("m1", 1, 0.05)),
        gpu("b", table),
        gpu("z", table, parked=True, open=False),
    ]
    assert planner.wake(gpus) is None


def test_the_papers_form_empties_what_its_packing_does_not_need(planner, table):
    gpus = [gpu(name, table, busy(f"m{index}", 1)) for index, name in enumerate("abcd")]
    demands = {model.name: Demand(0.05, 400.0, 100.0) for model in MODELS}
    plans = planner.paper(gpus, demands)
    assert plans
    kept = {gpu.name for gpu in gpus} - {plan.gpu for plan in plans}
    assert kept
    assert all(to in kept for plan in plans for _, to in plan.moves)
    heavy = {model.name: Demand(50.0, 4000.0, 500.0) for model in MODELS}
    assert planner.paper(gpus, heavy) == ()
    assert planner.paper(gpus[:1], demands) == ()


def test_gpus_of_kinds_without_a_profile_are_left_alone(planner, table):
    stranger = dataclasses.replace(gpu("x", table), kind="unknown")
    assert planner.empty([gpu("a", table, busy("m0")), stranger]) == ()
    assert planner.wake([stranger]) is None
    assert planner.paper([stranger], {}) == ()


def test_rules_that_make_no_sense_are_refused(table):
    with pytest.raises(BadRequestError, match="targets"):
        ConsolidationPlanner({KIND: table}, MODELS, ConsolidationRules(targets=0))
    with pytest.raises(BadRequestError, match="window_ms"):
        ConsolidationPlanner({KIND: table}, MODELS, ConsolidationRules(reserve=1.0))
