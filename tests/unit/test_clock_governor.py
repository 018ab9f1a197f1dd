"""The clock of an agent's device: a simulated H100 in virtual time, and lanes made by hand."""

from types import SimpleNamespace

import pytest
from virtual_agent import PRIOR, VirtualAgent, deployment, slo

from festina.config import AgentConfig
from festina.control.choice import LocalRules
from festina.control.clock import ClockPlanner, ClockRules, ModelLoad, Prompt, WaitingPrompt
from festina.control.clock_governor import ClockGovernor
from festina.control.clock_sweep import ClockSweep
from festina.control.lane import Lane
from festina.control.lengths import LengthPredictor
from festina.control.profile import ProfileTable, shipped_profiles
from festina.control.profiled import ProfiledStepTime
from festina.control.sequence import Sequence
from festina.control.step_time import LearnedStepTime
from festina.engine.blocks import BlockManager
from festina.runtime.agent_device import governor
from festina.types import Slo

TOP, LOW, SMS = 1980, 345, 132
RULES = LocalRules(batch_max=32, chunk_tokens=2048, margin=0.02)


@pytest.fixture
def table():
    return ProfileTable.load(shipped_profiles() / "H100-SXM5-80GB")


def lane_of(table, model="llama-8b"):
    return Lane(model, BlockManager(10_000), 16, ProfiledStepTime(table, model), LengthPredictor())


def sequence(number, tokens, *, at=0.0, output=0, tbt_ms=60.0, ttft_ms=1000.0):
    return Sequence(
        number=number,
        model="llama-8b",
        token_ids=[0] * (tokens + output),
        prompt_tokens=tokens,
        max_tokens=500,
        slo=Slo(ttft_ms, tbt_ms),
        pace=1.0,
        submitted_at=at,
        predicted_tokens=100,
        last_token_at=at,
    )


def decoding(lane, count, tokens=800, *, at=0.0, tbt_ms=60.0):
    for number in range(count):
        seq = sequence(number, tokens, at=at, output=1, tbt_ms=tbt_ms)
        seq.cached = tokens
        lane.running[number] = seq


def test_it_asks_for_the_clock_that_the_planner_has_for_the_same_load(table):
    lane = lane_of(table)
    decoding(lane, 20)
    for number in range(20, 23):
        lane.waiting[number] = sequence(number, 1500, at=-0.6)
    rules = ClockRules(hysteresis=False)
    chosen = ClockGovernor(table, SMS, rules=rules).choose([lane], RULES, LOW, LOW, 0.0)
    load = ModelLoad(
        "llama-8b",
        running=20,
        context_mean=800.0,
        tbt_ms=60.0,
        prompts_per_s=3 / 30,
        prompt_tokens=1500 * (1 - 0.8**3),
        hardest=Prompt(1500, 1000.0),
        waiting=(WaitingPrompt(1500, 1000.0, age_ms=600.0),) * 3,
    )
    plan = ClockPlanner(table, SMS, rules=rules).plan([load], LOW)
    assert chosen == plan.clock_mhz
    assert LOW < chosen < TOP


def test_prompts_count_once_and_are_forgotten(table):
    """A tight prompt that came holds the clock up without having to be there any more."""
    rules = ClockRules(raise_on_demand=False, hysteresis=False)
    clock, lane = ClockGovernor(table, SMS, rules=rules), lane_of(table)
    assert clock.choose([lane], RULES, LOW, LOW, 0.0) == LOW
    lane.waiting[0] = sequence(0, 2000, at=1.0, ttft_ms=100.0)
    held = clock.choose([lane], RULES, LOW, LOW, 1.0)
    assert held > LOW
    lane.waiting.clear()
    assert clock.choose([lane], RULES, held, held, 2.0) > LOW
    fresh = ClockGovernor(table, SMS, rules=rules)
    assert fresh.choose([lane], RULES, held, held, 2.0) == LOW


def test_between_arrivals_it_looks_ten_times_a_second(table):
    clock, lane = ClockGovernor(table, SMS), lane_of(table)
    assert clock.choose([lane], RULES, LOW, LOW, 0.0) == LOW
    decoding(lane, 30, tbt_ms=20.0)
    assert clock.choose([lane], RULES, LOW, LOW, 0.05) == LOW
    assert clock.choose([lane], RULES, LOW, LOW, 0.101) > LOW


def test_down_only_after_a_dwell_and_when_the_next_decodes_stay_in_time(table):
    clock, lane = ClockGovernor(table, SMS), lane_of(table)
    decoding(lane, 30, tbt_ms=20.0)
    high = clock.choose([lane], RULES, LOW, LOW, 0.0)
    lane.running.clear()
    assert clock.choose([lane], RULES, high, high, 0.9) == high
    decoding(lane, 30, at=2.0)
    low = clock.choose([lane], RULES, high, high, 2.0)
    assert low < high
    other = ClockGovernor(table, SMS)
    for seq in lane.running.values():  # their tokens are due in 9 ms
        seq.last_token_at = 2.0 - 0.051
    assert other.choose([lane], RULES, high, high, 2.0) == high


def test_a_model_that_the_profile_does_not_know_holds_the_highest_clock(table):
    lane = Lane("mine", BlockManager(10), 16, LearnedStepTime(PRIOR), LengthPredictor())
    lanes = [lane_of(table), lane]
    assert ClockGovernor(table, SMS).choose(lanes, RULES, LOW, LOW, 0.0) == TOP


def test_the_policy_chooses_the_rule_and_a_device_without_clocks_has_none(table):
    settable = SimpleNamespace(clocks_mhz=(LOW, TOP), partitions=(SimpleNamespace(sms=SMS),))
    fixed = SimpleNamespace(clocks_mhz=(), partitions=settable.partitions)
    assert isinstance(governor(table, settable, AgentConfig()), ClockGovernor)
    assert isinstance(governor(table, settable, AgentConfig(policy="paper")), ClockSweep)
    assert governor(table, fixed, AgentConfig()) is None
    assert governor(None, settable, AgentConfig()) is None


def test_an_idle_device_sinks_and_a_prompt_raises_it_at_once(table):
    agent = VirtualAgent(deployment(slo=slo(200.0, 60.0)), table=table)
    agent.welcome()
    agent.generate("warm", max_tokens=20)
    agent.run(until=5.0, idle=False)
    assert agent.device.clock_mhz() == LOW
    seen = agent.generate("hard", text="word " * 300, max_tokens=10)
    assert agent.device.clock_target_mhz > LOW
    agent.run(until=10.0, idle=False)
    assert seen.ttft_ms <= 200.0


def test_a_step_in_which_the_clock_changed_teaches_nothing(table):
    agent = VirtualAgent(deployment(), table=table)
    agent.generate("first", max_tokens=20)
    agent.run()
    learned = table.updates
    assert learned > 0
    agent.at(agent.now, lambda: agent.generate("one", max_tokens=1))
    agent.run(until=agent.now, idle=False)
    agent.device.set_clock_mhz(795)
    agent.device.advance(agent.now + 1.0)
    agent.run()
    assert table.updates == learned
