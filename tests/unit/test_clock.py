"""The clock of a load: least power in time, by the shipped profile of an H100."""

import dataclasses

import pytest

from festina.control.clock import (
    SWITCH_MS,
    ClockPlanner,
    ClockRules,
    ModelLoad,
    Prompt,
    WaitingPrompt,
)
from festina.control.profile import ProfileTable, shipped_profiles
from festina.errors import BadRequestError, UnknownModelError
from festina.types import Phase

SMS = 132
LOAD = ModelLoad("llama-8b", running=16, context_mean=800.0, tbt_ms=60.0)


@pytest.fixture(scope="module")
def table():
    return ProfileTable.load(shipped_profiles() / "H100-SXM5-80GB")


def planner(table, **rules):
    return ClockPlanner(table, SMS, rules=ClockRules(**rules))


def step(table, phase, work0, work1, clock_mhz, model="llama-8b"):
    clock = table.clocks_mhz.index(clock_mhz)
    rung = table.sms.index(SMS)
    return table.estimate(table.index(model), phase, rung, clock, work0, work1)[0]


def test_an_idle_gpu_takes_the_clock_of_least_idle_power(table):
    plan = planner(table).plan((), table.clocks_mhz[-1])
    least_w = min(table.idle_w(clock) for clock in table.clocks_mhz)
    assert (plan.power_w, plan.fits) == (pytest.approx(least_w), True)
    assert table.idle_w(plan.clock_mhz) == pytest.approx(least_w)


def test_decodes_take_the_least_clock_that_leaves_a_fifth_of_the_time(table):
    def share(clock_mhz):
        latency_ms = step(table, Phase.DECODE, 16, 800, clock_mhz)["latency_ms"]
        return latency_ms / (tbt_ms * 0.98)

    for tbt_ms in (9.0, 12.0, 20.0, 60.0):
        load = (dataclasses.replace(LOAD, tbt_ms=tbt_ms),)
        plan = planner(table).plan(load, table.clocks_mhz[-1])
        fitting = [clock for clock in table.clocks_mhz if share(clock) <= 0.8]
        assert plan.fits == bool(fitting)
        if not fitting:
            assert plan.clock_mhz == table.clocks_mhz[-1]
            continue
        power_w = {
            clock: table.idle_w(clock)
            + share(clock) * step(table, Phase.DECODE, 16, 800, clock)["power_w"]
            for clock in fitting
        }
        assert plan.power_w == pytest.approx(power_w[plan.clock_mhz], rel=1e-5)
        below = [clock for clock in fitting if clock < plan.clock_mhz]
        assert all(power_w[clock] >= plan.power_w - 1e-3 for clock in below)


def test_a_model_more_costs_more_and_in_the_end_does_not_fit(table):
    plans = [planner(table).plan([LOAD] * count, 1980) for count in range(12)]
    assert [plan.power_w for plan in plans] == sorted(plan.power_w for plan in plans)
    assert [plan.clock_mhz for plan in plans] == sorted(plan.clock_mhz for plan in plans)
    assert plans[1].fits
    assert not plans[-1].fits
    assert plans[-1].clock_mhz == table.clocks_mhz[-1]


def test_waiting_prompts_raise_the_clock_by_how_long_they_have_waited(table):
    def plan(age_ms, clock_mhz=1980):
        waiting = tuple(WaitingPrompt(2000, 1000.0, age_ms) for _ in range(3))
        return planner(table).plan([ModelLoad("llama-8b", waiting=waiting)], clock_mhz)

    relaxed, urgent = plan(0.0), plan(700.0)
    assert relaxed.fits
    assert urgent.fits
    assert relaxed.clock_mhz < urgent.clock_mhz
    assert not plan(950.0).fits
    # From a low clock the switch itself takes time that there is no more.
    top_ms = 3 * float(step(table, Phase.PREFILL, 2000, 0, 1980)["latency_ms"])
    just_ms = 980.0 - top_ms - SWITCH_MS / 2
    assert plan(just_ms, 1980).fits
    assert not plan(just_ms, table.clocks_mhz[0]).fits


def test_prompts_that_may_come_hold_the_clock_up_only_where_it_may_not_be_raised(table):
    top_ms = step(table, Phase.PREFILL, 1500, 0, 1980)["latency_ms"]
    hard = Prompt(1500, ttft_ms=float(1.3 * top_ms / 0.98))
    load = [ModelLoad("llama-8b", prompts_per_s=0.1, prompt_tokens=1500.0, hardest=hard)]
    held = planner(table, raise_on_demand=False).plan(load, 1980)
    assert held.fits
    need_ms = step(table, Phase.PREFILL, 1500, 0, held.clock_mhz)["latency_ms"]
    assert need_ms <= 1.3 * top_ms
    loose = dataclasses.replace(load[0], hardest=Prompt(1500, float(2 * top_ms + 2 * SWITCH_MS)))
    assert planner(table).plan([loose], 1980).clock_mhz < held.clock_mhz


def test_without_the_region_below_the_knee_clocks_stay_above_it(table):
    low = planner(table).plan((), 1980).clock_mhz
    high = planner(table, below_knee=False).plan((), 1980).clock_mhz
    assert low < high < 1980


def test_a_prompt_can_be_served_until_those_before_it_take_too_long(table):
    rule = planner(table)
    prompt = Prompt(1000, ttft_ms=500.0)

    def could(count, ready_ms=0.0):
        waiting = tuple(WaitingPrompt(1000, 500.0) for _ in range(count))
        load = [dataclasses.replace(LOAD, waiting=waiting)]
        return rule.could_serve(load, "llama-8b", prompt, ready_ms=ready_ms, clock_mhz=1980)

    answers = [could(count) for count in range(40)]
    assert answers[0]
    assert not answers[-1]
    assert answers == sorted(answers, reverse=True)
    assert not could(0, ready_ms=500.0)
    full = [dataclasses.replace(LOAD, tbt_ms=7.0)]
    assert not rule.could_serve(full, "llama-8b", prompt, ready_ms=0.0, clock_mhz=1980)


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"utilisation": 1.0}, "utilisation"),
        ({"utilisation": 0.0}, "utilisation"),
        ({"margin": 1.0}, "margin"),
        ({"dwell_ms": -1.0}, "dwell_ms"),
        ({"memory_ms": 0.0}, "memory_ms"),
    ],
)
def test_rules_out_of_range_are_refused(table, rules, field):
    with pytest.raises(BadRequestError) as raised:
        planner(table, **rules)
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("load", "field"),
    [
        (ModelLoad("llama-8b", running=-1), "running"),
        (ModelLoad("llama-8b", running=1, tbt_ms=0.0), "tbt_ms"),
        (ModelLoad("llama-8b", prompts_per_s=-1.0), "prompts_per_s"),
        (ModelLoad("llama-8b", prompt_tokens=-1.0), "prompt_tokens"),
        (ModelLoad("llama-8b", hardest=Prompt(5, 0.0)), "ttft_ms"),
        (ModelLoad("llama-8b", waiting=(WaitingPrompt(5, 0.0),)), "objective_ms"),
        (ModelLoad("llama-8b", waiting=(WaitingPrompt(-5, 1.0),)), "tokens"),
    ],
)
def test_loads_out_of_range_are_refused(table, load, field):
    with pytest.raises(BadRequestError) as raised:
        planner(table).plan([load], 1980)
    assert raised.value.field == field


def test_a_model_without_a_profile_is_refused(table):
    with pytest.raises(UnknownModelError):
        planner(table).plan([ModelLoad("nobody")], 1980)
