"""What the choice of an operating point does with each rule, on a profile of simple formulas."""

import math

import decision_samples as sample
import numpy as np
import pytest

from festina.control.operating_point import TASK, Solver, SolverSettings
from festina.errors import BadRequestError
from festina.types import OperatingPoint, Phase

EVERYTHING = {"clock_mhz": 1000, "sms": 100, "memory_free_bytes": 1e9}


@pytest.fixture(scope="module")
def profile():
    return sample.table()


def task(phase, work0, work1, deadline_ms, age_ms=0.0, memory_bytes=0.0, model=0):
    return (model, phase, work0, work1, deadline_ms, age_ms, memory_bytes)


def decode(deadline_ms, batch=4, context=300, **more):
    return task(Phase.DECODE, batch, context, deadline_ms, **more)


def prefill(deadline_ms, tokens=500, **more):
    return task(Phase.PREFILL, tokens, 0, deadline_ms, **more)


def solve(profile, tasks, policy="festina", state=None, **settings):
    solver = Solver(profile, SolverSettings(policy=policy, **settings))
    return solver.solve(np.array(tasks, TASK), **(EVERYTHING | (state or {})))


# --- admission and score --------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_the_task_that_uses_up_most_of_its_slack_goes_first(profile, policy):
    tight, loose = decode(6.0), decode(500.0, batch=60)  # the tight one needs the whole GPU
    plan = solve(profile, [loose, tight], policy)
    assert plan.rung[1] >= 0
    assert plan.rung[0] == -1 or plan.rung.sum() <= len(sample.SMS)


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_age_makes_a_prefill_urgent_but_not_a_decode(profile, policy):
    def first(phase, **more):
        make = prefill if phase == Phase.PREFILL else decode
        both = [make(400.0, memory_bytes=1.0), make(300.0, memory_bytes=1.0)]
        both[0] = (*both[0][:5], more["age_ms"], 1.0)
        plan = solve(profile, both, policy, {"memory_free_bytes": 1.0})
        return int(np.argmax(plan.rung >= 0))

    assert first(Phase.PREFILL, age_ms=0.0) == 1
    assert first(Phase.PREFILL, age_ms=200.0) == 0
    assert first(Phase.DECODE, age_ms=200.0) == 1


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_a_task_whose_denominator_is_not_positive_is_most_urgent(profile, policy):
    nearly = decode(5.1, memory_bytes=1.0)
    waited = prefill(5000.0, age_ms=5000.0, memory_bytes=1.0)
    longer = prefill(5000.0, age_ms=5001.0, memory_bytes=1.0)
    one = {"memory_free_bytes": 1.0}
    assert list(solve(profile, [nearly, waited], policy, one).rung >= 0) == [False, True]
    assert list(solve(profile, [waited, longer], policy, one).rung >= 0) == [False, True]


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_a_task_that_does_not_fit_is_skipped_not_waited_for(profile, policy):
    big, small = decode(8.0, memory_bytes=11.0), decode(80.0, memory_bytes=10.0)
    plan = solve(profile, [big, small], policy, {"memory_free_bytes": 10.0})
    assert list(plan.rung >= 0) == [False, True]
    assert math.isinf(plan.latency_ms[0])


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_partitions_never_exceed_the_sms(profile, policy):
    plan = solve(profile, [prefill(100.0 + i) for i in range(12)], policy, {"sms": 90})
    used = [sample.SMS[rung] for rung in plan.rung if rung >= 0]
    assert used
    assert sum(used) <= 90


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_a_late_task_gets_what_is_left_at_the_top_clock(profile, policy):
    plan = solve(profile, [prefill(-5.0)], policy)
    assert (plan.on_time, plan.clock_mhz, plan.rung[0]) == (False, 2000, 3)


# --- the sweep ------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_every_task_gets_the_fewest_sms_that_meet_its_deadline(profile, policy):
    tasks = [prefill(60.0), decode(12.0)]
    plan = solve(profile, tasks, policy)
    assert plan.on_time
    for (model, phase, work0, work1, deadline_ms, *_), rung in zip(tasks, plan.rung, strict=True):
        least = profile.least_sms(f"m{model}", phase, plan.clock_mhz, work0, work1, deadline_ms)
        assert sample.SMS[rung] == least
    assert plan.latency_ms[0] <= 60.0


def test_tight_deadlines_raise_the_clock(profile):
    assert solve(profile, [prefill(200.0)]).clock_mhz == 500
    assert solve(profile, [prefill(7.0)]).clock_mhz == 2000


def test_the_margin_is_taken_off_deadlines(profile):
    assert solve(profile, [prefill(21.5)]).clock_mhz == 500
    assert solve(profile, [prefill(21.5)], margin=0.1).clock_mhz == 1000


def test_paper_bills_idle_power_to_every_task(profile):
    tasks = [decode(50.0), decode(50.0)]
    plan = solve(profile, tasks, "paper")
    clock = sample.CLOCKS_MHZ.index(plan.clock_mhz)
    expected = sum(
        plan.latency_ms[i]
        * (sample.power_w(sample.SMS[plan.rung[i]], plan.clock_mhz) + sample.IDLE_W[clock])
        for i in range(2)
    )
    assert plan.energy_j == pytest.approx(expected / 1000, rel=1e-4)


def test_idle_power_is_charged_once(profile):
    tasks = [decode(50.0), decode(50.0)]
    once, each = (
        solve(profile, tasks, one_idle_power=once, clocks_settable=False) for once in (True, False)
    )
    saved = sample.IDLE_W[sample.CLOCKS_MHZ.index(1000)] * each.latency_ms[1] / 1000
    assert each.energy_j - once.energy_j == pytest.approx(saved, rel=1e-3)


def test_the_clock_is_not_taken_below_the_knee(profile):
    easy = [decode(500.0)]
    assert solve(profile, easy).clock_mhz == 500
    assert solve(profile, easy, knee_mhz=900).clock_mhz == 1000
    assert solve(profile, easy, "paper", knee_mhz=1500).clock_mhz == 1000


def test_co_runners_share_the_memory_bandwidth(profile):
    tasks = [decode(50.0), decode(50.0)]
    free = solve(profile, tasks)
    shared = solve(profile, tasks, bandwidth_bytes_per_s=sample.BYTES_PER_S)
    assert shared.latency_ms == pytest.approx(2 * free.latency_ms)
    assert shared.power_w < free.power_w
    tight = [decode(9.0), decode(9.0)]  # alone 20 SMs would do; slowed to a half they do not
    assert solve(profile, tight).on_time
    assert not solve(profile, tight, bandwidth_bytes_per_s=sample.BYTES_PER_S).on_time


def test_a_clock_goes_up_at_once_when_an_objective_is_at_risk(profile):
    now = {"clock_mhz": 500, "since_switch_ms": 1.0}
    stiff = {"switch_cost_j": 1e6, "dwell_ms": 1000.0}
    assert solve(profile, [prefill(7.0)], state=now, **stiff).clock_mhz == 2000


def test_a_clock_goes_down_only_if_the_saving_over_the_dwell_exceeds_the_cost(profile):
    def clock(switch_cost_j):
        now = {"clock_mhz": 2000}
        settings = {"switch_cost_j": switch_cost_j, "dwell_ms": 1000.0}
        return solve(profile, [decode(500.0)], state=now, **settings).clock_mhz

    assert clock(1.0) == 500
    assert clock(1000.0) == 2000


def test_a_clock_stays_for_its_dwell(profile):
    def clock(since_switch_ms):
        now = {"clock_mhz": 2000, "since_switch_ms": since_switch_ms}
        return solve(profile, [decode(500.0)], state=now, dwell_ms=1000.0).clock_mhz

    assert clock(999.0) == 2000
    assert clock(1001.0) == 500


def test_a_power_budget_bounds_the_clock_before_the_objectives(profile):
    hard = [prefill(7.0)]
    free = solve(profile, hard)
    bound = solve(profile, hard, state={"power_budget_w": free.power_w - 1})
    assert (free.clock_mhz, free.on_time) == (2000, True)
    assert (bound.clock_mhz, bound.on_time) == (1000, False)
    assert bound.power_w <= free.power_w - 1
    least = solve(profile, hard, state={"power_budget_w": 1.0})
    assert least.clock_mhz == 500


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_the_clock_stays_where_it_cannot_be_set(profile, policy):
    for clock_mhz in sample.CLOCKS_MHZ:
        plan = solve(
            profile, [prefill(7.0)], policy, {"clock_mhz": clock_mhz}, clocks_settable=False
        )
        assert plan.clock_mhz == clock_mhz
        assert plan.on_time == (clock_mhz == 2000)


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_a_device_without_clocks_is_solved_too(policy):
    plain = sample.table(sms=(1,), clocks=(0,))
    plan = solve(plain, [decode(1e6)], policy, {"clock_mhz": 0, "sms": 1}, clocks_settable=False)
    assert (plan.clock_mhz, plan.on_time, list(plan.rung)) == (0, True, [0])


@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_nothing_to_run_is_a_plan_without_tasks(profile, policy):
    plan = solve(profile, [], policy)
    assert (plan.rung.shape, plan.on_time, plan.span_ms) == ((0,), True, 0.0)
    assert plan.clock_mhz == 500


def test_corrections_of_the_profile_count_at_once():
    own = sample.table()
    solver = Solver(own)
    tasks = np.array([decode(20.0, batch=4, context=128)], TASK)
    before = solver.solve(tasks, **EVERYTHING)
    point = OperatingPoint(before.clock_mhz, sample.SMS[before.rung[0]])
    for _ in range(20):
        own.correct("m0", Phase.DECODE, point, 4, 128, 2 * float(before.latency_ms[0]))
    assert solver.solve(tasks, **EVERYTHING).rung[0] > before.rung[0]


# --- the edge -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": 2}, "model"),
        ({"model": -1}, "model"),
        ({"phase": 2}, "phase"),
        ({"work0": 0}, "work0"),
        ({"work0": math.nan}, "work0"),
        ({"work1": -1}, "work1"),
        ({"deadline_ms": math.nan}, "deadline_ms"),
        ({"age_ms": -1}, "age_ms"),
        ({"memory_bytes": math.inf}, "memory_bytes"),
    ],
)
def test_a_bad_task_is_named(profile, change, field):
    tasks = np.array([decode(10.0), decode(10.0)], TASK)
    for name, value in change.items():
        tasks[name][1] = value
    with pytest.raises(BadRequestError) as caught:
        Solver(profile).solve(tasks, **EVERYTHING)
    assert caught.value.field == f"tasks[1].{field}"


@pytest.mark.parametrize("tasks", [np.zeros(2), np.zeros((1, 1), TASK), np.zeros(2, np.int64)])
def test_tasks_of_another_kind_are_refused(profile, tasks):
    with pytest.raises(BadRequestError, match="TASK"):
        Solver(profile).solve(tasks, **EVERYTHING)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"clock_mhz": -1}, "clock_mhz"),
        ({"sms": 19}, "sms"),
        ({"memory_free_bytes": -1.0}, "memory_free_bytes"),
        ({"since_switch_ms": math.nan}, "since_switch_ms"),
        ({"power_budget_w": 0.0}, "power_budget_w"),
    ],
)
def test_a_bad_state_is_named(profile, change, field):
    with pytest.raises(BadRequestError) as caught:
        solve(profile, [decode(10.0)], state=change)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"policy": "best"}, "policy"),
        ({"margin": 1.0}, "margin"),
        ({"beta": -1.0}, "beta"),
        ({"bandwidth_bytes_per_s": 0.0}, "bandwidth_bytes_per_s"),
        ({"knee_mhz": -1}, "knee_mhz"),
        ({"switch_cost_j": math.inf}, "switch_cost_j"),
        ({"dwell_ms": math.nan}, "dwell_ms"),
    ],
)
def test_a_bad_setting_is_named(profile, settings, field):
    with pytest.raises(BadRequestError) as caught:
        Solver(profile, SolverSettings(**settings))
    assert caught.value.field == field
