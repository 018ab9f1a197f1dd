"""Step times and clocks from a profile, on a simulated H100 in virtual time."""

from itertools import pairwise

import pytest
from virtual_agent import VirtualAgent, deployment, slo

from festina.control.profile import ProfileTable, shipped_profiles
from festina.control.profiled import ProfiledStepTime, profile_key
from festina.control.step_time import StepWork, predict_ms
from festina.engine.simulated import SimulatedNoise
from festina.messages import Finished
from festina.types import OperatingPoint, Phase

TOP = 1980


@pytest.fixture
def table():
    return ProfileTable.load(shipped_profiles() / "H100-SXM5-80GB")


def serve(table, *, count=24, gap_s=0.12, tbt_ms=100.0, noise=None):
    """Energy in J and all gaps of a steady stream, the load and warm-up left out."""
    agent = VirtualAgent(
        deployment(pace=0.9, slo=slo(1500.0, tbt_ms)),
        table=table,
        noise=noise or SimulatedNoise(bias=0.05, jitter=0.02, seed=1),
    )
    agent.generate("warm", max_tokens=20)
    agent.run()
    start, start_j = agent.now, agent.device.energy_j(agent.now).value
    for i in range(count):
        agent.at(
            start + gap_s * i,
            lambda i=i: agent.generate(f"r{i}", text=f"prompt {i} " * 20, max_tokens=40),
        )
    agent.run()
    served = [seen for (_, name), seen in agent.seen.items() if name != "warm"]
    assert all(isinstance(seen.end, Finished) for seen in served)
    return agent, agent.device.energy_j(agent.now).value - start_j, served


def test_a_step_with_prompt_tokens_is_looked_up_as_a_prefill():
    assert profile_key(StepWork(0, 8, 4000)) == (Phase.DECODE, 8.0, 500.0)
    assert profile_key(StepWork(100, 4, 600, 50.0)) == (Phase.PREFILL, 104.0, 50.0)


def test_a_clock_between_those_of_the_profile_counts_as_the_nearest(table):
    model = ProfiledStepTime(table, "llama-8b")
    work = StepWork(0, 8, 4000)
    exact = predict_ms(model.cost(OperatingPoint(1635, 132)), work)
    assert predict_ms(model.cost(OperatingPoint(1650, 132)), work) == exact
    model.learn(work, OperatingPoint(1650, 132), 2 * exact)
    assert predict_ms(model.cost(OperatingPoint(1635, 132)), work) > exact


def test_measured_steps_correct_the_prediction(table):
    model = ProfiledStepTime(table, "llama-8b")
    point, work = OperatingPoint(TOP, 132), StepWork(0, 8, 4000)
    before = predict_ms(model.cost(point), work)
    for _ in range(60):
        model.learn(work, point, before * 1.3)
    assert predict_ms(model.cost(point), work) > before * 1.2


def test_slack_lowers_the_clock_and_saves_energy_within_the_objectives(table):
    agent, low_j, served = serve(table)
    clocks = {batch.point.clock_mhz for _, batch in agent.batches}
    assert min(clocks) < TOP
    assert max(gap for seen in served for gap in seen.gaps_ms) <= 100.0
    assert max(seen.ttft_ms for seen in served) <= 1500.0
    _, top_j, _ = serve(None)
    assert low_j < 0.9 * top_j


def test_an_objective_that_needs_the_top_clock_gets_it(table):
    agent, _, _ = serve(table, tbt_ms=8.5)
    steady = [batch.point.clock_mhz for _, batch in agent.batches][-20:]
    loose, _, _ = serve(table, tbt_ms=200.0)
    assert min(steady) > max(batch.point.clock_mhz for _, batch in loose.batches[-20:])


def test_the_clock_does_not_oscillate(table):
    agent, _, _ = serve(table)
    clocks = [batch.point.clock_mhz for _, batch in agent.batches]
    changes = sum(a != b for a, b in pairwise(clocks))
    assert changes <= 2 * (agent.now / 0.5) + 2


def test_a_profile_that_is_wrong_heals_before_objectives_break(table):
    _, _, served = serve(table, noise=SimulatedNoise(bias=0.3, jitter=0.02, seed=5))
    gaps = sorted(gap for seen in served for gap in seen.gaps_ms)
    assert gaps[int(0.99 * len(gaps))] <= 100.0
