"""What an agent adds up and tells: energy by phase, moves, wakes, and what clocks saved."""

import pytest
from decision_samples import IDLE_W, SPREAD, latency_ms, power_w, table
from moving_agent import copy_until_handover, running
from virtual_agent import VirtualAgent, deployment

from festina.account import MODELS_MAX, OTHERS, WAKE_S, MoveCount, WakeTimes
from festina.control.clock_savings import ClockSavings
from festina.control.profiled import ProfiledStepTime
from festina.control.step_time import LearnedStepTime, StepTimePrior, StepWork
from festina.errors import AgentLostError
from festina.messages import Declined, Park, Summary, Taken, Wake
from festina.runtime.protocol.agent_account import MoveTally, WakeTally, account_of
from festina.types import OperatingPoint, Phase

AT_1000 = OperatingPoint(1000, 100)


def test_models_beyond_the_bound_are_one_sum_that_never_falls():
    energy = {(f"m{number}", Phase.PREFILL): 1.0 for number in range(MODELS_MAX + 9)}
    energy |= {("m0", Phase.DECODE): 5.0, (f"m{MODELS_MAX + 1}", Phase.DECODE): 2.0}
    told = account_of(3.0, energy, MoveTally(), WakeTally(), 0.0).energy
    assert len(told) == MODELS_MAX
    assert (told[0].model, told[0].prefill_j, told[0].decode_j) == ("m0", 1.0, 5.0)
    assert (told[-1].model, told[-1].prefill_j, told[-1].decode_j) == (OTHERS, 10.0, 2.0)


def test_moves_and_wakes_are_counted_by_how_they_went():
    moves, wakes = MoveTally(), WakeTally()
    assert account_of(0.0, {}, moves, wakes, 0.0).wakes.counts == ()
    for outcome in ("moved", "moved", "lost"):
        moves.add("copy", outcome)
    for seconds in (0.0, WAKE_S[0], 0.3, 1e6):
        wakes.add(seconds)
    told = account_of(0.0, {}, moves, wakes, 0.0)
    assert told.moves == (MoveCount("copy", "lost", 1), MoveCount("copy", "moved", 2))
    assert told.wakes.counts == (2, 0, 0, 1, *(0,) * (len(WAKE_S) - 4), 1)
    assert told.wakes.sum_s == pytest.approx(1e6 + 0.35)


def test_without_a_profile_or_at_the_highest_clock_nothing_is_saved():
    savings, step_time = ClockSavings(), ProfiledStepTime(table(), "m0")
    savings.step(LearnedStepTime(StepTimePrior(1.0, 1.0, 1.0, 0.0)), StepWork(0, 4, 400), AT_1000)
    savings.step(step_time, StepWork(0, 4, 400), OperatingPoint(0, 100))
    savings.step(step_time, StepWork(0, 4, 400), OperatingPoint(2000, 100))
    savings.advance(0.0, 2000, awake=True)
    savings.advance(9.0, 2000, awake=True)
    assert savings.saved_j == 0.0


def test_a_step_saves_what_it_takes_less_than_at_the_highest_clock():
    savings, step_time = ClockSavings(), ProfiledStepTime(table(), "m0")
    savings.step(step_time, StepWork(0, 4, 400), AT_1000)
    slow_ms = latency_ms(Phase.DECODE, 4, 128, 100, 1000)
    fast_ms = latency_ms(Phase.DECODE, 4, 128, 100, 2000)
    expected_mj = fast_ms * power_w(100, 2000) - slow_ms * power_w(100, 1000)
    assert savings.saved_j == pytest.approx(expected_mj * (1 + SPREAD) / 1e3, rel=1e-4)
    assert savings.saved_j > 0.0


def test_an_idle_device_saves_by_its_clock_while_it_is_awake():
    savings = ClockSavings()
    savings.step(ProfiledStepTime(table(), "m0"), StepWork(0, 4, 400), OperatingPoint(2000, 100))
    savings.advance(1.0, 1000, awake=True)
    savings.advance(3.0, 2000, awake=True)
    savings.advance(9.0, 500, awake=False)
    savings.advance(20.0, 500, awake=True)
    savings.advance(21.0, 500, awake=True)
    assert savings.saved_j == pytest.approx(2 * (IDLE_W[2] - IDLE_W[1]) + IDLE_W[2] - IDLE_W[0])


def accounts(agent):
    return [m.account for _, m in agent.to_scheduler if isinstance(m, Summary) and m.account]


def test_the_account_is_told_once_a_second_and_adds_up_to_what_the_device_used():
    agent = VirtualAgent(deployment())
    agent.welcome()
    agent.generate("a", max_tokens=40)
    agent.generate("b", max_tokens=60)
    agent.run(until=5.0, idle=False)
    told = accounts(agent)
    summaries = [m for _, m in agent.to_scheduler if isinstance(m, Summary)]
    assert len(summaries) > 10 * len(told)
    total_j = [one.idle_j + sum(m.prefill_j + m.decode_j for m in one.energy) for one in told]
    used_j = [m.gpu.energy_j for m in summaries if m.account]
    assert total_j == pytest.approx(used_j)
    (chat,) = told[-1].energy
    assert chat.model == "chat"
    assert 0.0 < chat.prefill_j < chat.decode_j
    assert total_j[-1] > 0.0


def test_a_wake_from_a_park_is_timed():
    agent = VirtualAgent(deployment())
    agent.welcome()
    agent.from_scheduler(Park())
    agent.run(until=1.0, idle=False)
    assert accounts(agent)[-1].wakes == WakeTimes()
    agent.from_scheduler(Wake())
    agent.run(until=3.0, idle=False)
    agent.welcome(scheduler_epoch=2)
    agent.run(until=4.5, idle=False)
    wakes = accounts(agent)[-1].wakes
    assert sum(wakes.counts) == 1
    assert wakes.sum_s > 0.0


@pytest.mark.parametrize(
    ("answers", "outcome"), [(("taken",), "moved"), (("declined",), "kept"), ((), "lost")]
)
def test_a_move_is_counted_by_what_became_of_it(answers, outcome):
    agent, _ = running()
    agent.migrate()
    move = copy_until_handover(agent)
    key = move.key
    for answer in answers:
        agent.from_target(
            Taken(key) if answer == "taken" else Declined(key, 8, AgentLostError("no").info())
        )
    agent.pass_time(10.0)
    assert agent.logic.moves.tally.told() == (MoveCount("copy", outcome, 1),)
