"""Drain, park and wake at an agent: leases, what ends them, and what wakes a parked device."""

import pytest
from tests.support.virtual_agent import VirtualAgent, deployment

from festina.messages import Drain, Load, Park, Summary, Unload, Wake
from festina.types import ModelState


def last(agent):
    return next(m for _, m in reversed(agent.to_scheduler) if isinstance(m, Summary)).gpu


def started(*deployments, **fields):
    agent = VirtualAgent(*(deployments or (deployment(),)), **fields)
    agent.welcome()
    return agent


def runs_until(agent, when):
    """Its summary then. The scheduler has been mute, so it says first that it is there."""
    agent.run(until=when, idle=False)
    agent.welcome(scheduler_epoch=2)
    agent.run(until=when + 1e-3, idle=False)
    return last(agent)


def test_a_drain_is_a_lease():
    agent = started()
    agent.from_scheduler(Drain(1000))
    assert runs_until(agent, 0.9).draining
    assert not runs_until(agent, 1.1).draining
    agent.from_scheduler(Drain(10_000))
    agent.from_scheduler(Drain(0))
    assert not runs_until(agent, 1.3).draining


def test_it_parks_once_its_requests_have_ended_and_its_models_are_gone():
    agent = started()
    seen = agent.generate(max_tokens=50)
    agent.run(until=0.6, idle=False)
    agent.from_scheduler(Drain(60_000))
    agent.from_scheduler(Park())
    assert not runs_until(agent, 0.7).parked
    summary = runs_until(agent, 10.0)
    assert seen.end.usage.output_tokens == 50
    assert summary.parked
    assert summary.models == ()
    assert agent.device.parked
    assert summary.settled_s == pytest.approx(10.0 - seen.ended_at, abs=0.1)


def test_a_wish_to_park_ends_with_its_lease():
    agent = started()
    agent.generate(max_tokens=200)
    agent.run(until=0.6, idle=False)
    agent.from_scheduler(Drain(500))
    agent.from_scheduler(Park())
    agent.run()
    assert not runs_until(agent, agent.now + 1.0).parked


def test_a_request_that_comes_ends_the_wish_to_park():
    agent = started()
    agent.generate("a", max_tokens=20)
    agent.run(until=0.6, idle=False)
    agent.from_scheduler(Drain(60_000))
    agent.from_scheduler(Park())
    agent.generate("b", max_tokens=20)
    agent.run()
    assert not runs_until(agent, agent.now + 1.0).parked
    agent.from_scheduler(Park())
    assert runs_until(agent, agent.now + 1.0).parked


@pytest.mark.parametrize("how", ["generate", "load", "wake"])
def test_whatever_needs_a_parked_device_wakes_it(how):
    agent = started()
    agent.from_scheduler(Park())
    assert runs_until(agent, 1.0).parked
    parked_w = agent.device.power_w(2.5).value
    if how == "generate":
        agent.generate(max_tokens=4)
    else:
        agent.from_scheduler(Load("chat") if how == "load" else Wake())
    summary = runs_until(agent, 4.0)
    assert not summary.parked
    assert agent.device.power_w(4.0).value > parked_w + 20
    if how == "generate":
        (seen,) = agent.seen.values()
        assert seen.end.usage.output_tokens == 4
        assert seen.ttft_ms > agent.device.gpu.wake_ms
    assert (summary.models != ()) == (how != "wake")


def test_a_wake_that_comes_while_it_parks_is_not_lost():
    agent = started()
    agent.from_scheduler(Park())
    agent.from_scheduler(Wake())
    assert not runs_until(agent, 2.0).parked
    agent.from_scheduler(Wake())
    agent.from_scheduler(Wake())
    assert not runs_until(agent, 3.0).parked


def test_it_can_be_told_twice_to_park():
    agent = started()
    agent.from_scheduler(Park())
    agent.from_scheduler(Park())
    agent.run(until=1.0, idle=False)
    agent.from_scheduler(Park())
    assert runs_until(agent, 2.0).parked


def test_summaries_count_what_was_asked_for():
    agent = started()
    agent.generate("a", text="hello", max_tokens=8)
    agent.run()
    agent.from_scheduler(Unload("chat"))
    agent.run(until=agent.now + 1, idle=False)
    assert last(agent).models == ()
    agent.generate("b", text="hello there", max_tokens=4)
    agent.run()
    (model,) = runs_until(agent, agent.now + 0.2).models
    assert (model.requests_total, model.output_tokens_total) == (2, 12)
    assert model.input_tokens_total == len("hello") + len("hello there")


def test_idle_weights_make_way_for_a_model_that_is_needed():
    """Each of these pools takes, with its weights, more than a third of the memory."""
    models = [deployment(name, kv_tokens=100_000) for name in ("a", "b", "c")]
    agent = started(*models)
    for name in ("a", "b"):
        agent.generate(name, model=name, max_tokens=4)
        agent.run()
    free = runs_until(agent, agent.now + 0.2).memory_free_bytes
    assert free == agent.device.memory_bytes
    seen = agent.generate("c", model="c", max_tokens=4)
    agent.run()
    assert seen.end.usage.output_tokens == 4
    states = {residency.deployment.name: residency.state for residency in agent.logic.models}
    assert states == {"a": ModelState.ABSENT, "b": ModelState.READY, "c": ModelState.READY}
