"""What a parked GPU is said to save."""

import pytest
from decision_samples import resident, summary

from festina.messages import AgentInfo
from festina.runtime.protocol.consolidator_savings import IDLE_S, Savings


def agent(name="gpu0", running=0, **fields):
    return AgentInfo(name, 1, "H100", 0.0, summary(resident("m0", running), **fields))


def parked(energy_j, name="gpu0"):
    return AgentInfo(name, 1, "H100", 0.0, summary(parked=True, energy_j=energy_j, power_w=60.0))


def look(savings, now, *agents):
    return list(savings.observe(agents, now))


def test_it_is_the_power_of_the_idle_gpu_and_not_of_the_work_just_before():
    savings = Savings(10.0)
    look(savings, 0.0, agent(power_w=70.0))
    look(savings, IDLE_S, agent(power_w=70.0))
    look(savings, 5.0, agent(running=3, power_w=300.0))
    look(savings, 6.0, agent(power_w=250.0))  # a mean that has work in it
    savings.parked(1, parked(1000.0), 500.0, 50.0, 7.0)
    look(savings, 17.0, parked(1600.0))
    assert savings.saved_j() == pytest.approx(10 * 70.0 - 600.0)


def test_a_gpu_that_never_idled_is_judged_by_its_like_or_saves_nothing():
    savings = Savings(10.0)
    savings.parked(1, parked(0.0), 500.0, 50.0, 0.0)
    look(savings, 10.0, parked(600.0))
    assert savings.saved_j() == pytest.approx(0.0)
    look(savings, 11.0, parked(660.0), agent("gpu1", power_w=72.0))
    look(savings, 20.0, parked(1200.0), agent("gpu1", power_w=72.0))
    savings.parked(2, parked(0.0, "gpu2"), 500.0, 50.0, 20.0)
    look(savings, 30.0, parked(1800.0), parked(600.0, "gpu2"))
    assert savings.saved_j() == pytest.approx(120.0)
