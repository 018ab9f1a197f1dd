"""`AgentLogic` and an engine that is lost and had again, or parked meanwhile, in virtual time."""

import pytest
from virtual_agent import LOAD_S, VirtualAgent, deployment, reference

from festina.config import AgentConfig
from festina.messages import Failed, Finished, Leave, Park, Summary, Unload
from festina.types import ModelState

WAKE_S = 1.5
TEXT = "a prompt that takes more than a block or two of sixteen tokens"


def agent(*deployments, **fields):
    made = VirtualAgent(*(deployments or [deployment()]), **fields)
    made.welcome()
    return made


def served(made, request_id="r", max_tokens=8, **fields):
    seen = made.generate(request_id, text=TEXT, max_tokens=max_tokens, **fields)
    made.run()
    assert isinstance(seen.end, Finished), seen.end
    return seen


def last_summary(made):
    made.welcome(scheduler_epoch=2)  # it has been mute for long
    made.run(until=made.now + 0.1, idle=False)
    return [m for _, m in made.to_scheduler if isinstance(m, Summary)][-1].gpu


def parked(made):
    made.from_scheduler(Park())
    assert last_summary(made).parked
    return made


def test_a_request_wakes_it_and_gets_the_same_answer():
    made = parked(agent())
    seen = served(made)
    assert seen.token_ids == reference(TEXT, 8)
    assert seen.ttft_ms > (WAKE_S + LOAD_S) * 1e3
    assert len(made.wakes) == 1
    assert not last_summary(made).parked
    assert not made.device.parked


def test_a_request_that_comes_while_it_parks_is_served():
    made = agent()
    served(made)
    made.from_scheduler(Park())
    seen = made.generate("now", text=TEXT)
    made.run()
    assert isinstance(seen.end, Finished)
    assert not made.device.parked
    assert not last_summary(made).parked


def test_a_request_that_comes_while_the_context_goes_is_served_by_the_next_one():
    """Its load must not reach an engine that is parked."""
    made = agent()
    served(made)
    made.from_scheduler(Park())
    made.run(until=made.now + 0.0015, idle=False)  # unloaded, and now being parked
    seen = made.generate("now", text=TEXT)
    made.run()
    assert isinstance(seen.end, Finished)
    assert len(made.wakes) == 1
    assert not made.device.parked


@pytest.mark.parametrize("losing", [{1}, {2}, {5}, {2, 3}, {4, 9}])
def test_a_lost_engine_costs_no_token(losing):
    """Steps 1 to 4 are the prefill of two requests, later ones decode both."""
    made = agent(losing=losing, agent=AgentConfig(chunk_tokens=32))
    one = made.generate("one", text=TEXT, max_tokens=8)
    two = made.generate("two", text=TEXT[::-1], max_tokens=8)
    made.run()
    assert one.token_ids == reference(TEXT, 8)
    assert two.token_ids == reference(TEXT[::-1], 8)
    assert len(made.wakes) == len(losing)
    assert one.end.usage.preemptions + two.end.usage.preemptions >= 1
    assert made.taken_blocks() == 0


def test_all_models_come_back_and_their_requests_go_on():
    made = agent(deployment("chat"), deployment("code"), losing={6})
    seen = [
        made.generate(f"{model}{i}", model, text=f"{TEXT} {i}", max_tokens=12)
        for model in ("chat", "code")
        for i in range(3)
    ]
    made.run()
    for index, one in enumerate(seen):
        assert one.token_ids == reference(f"{TEXT} {index % 3}", 12)
    states = {item.model: item.state for item in last_summary(made).models}
    assert states == {"chat": ModelState.READY, "code": ModelState.READY}


def test_an_idle_engine_that_is_gone_is_had_again_unasked():
    made = agent()
    served(made)
    made.engine.lost = True
    made.run(until=made.now + 5.0, idle=False)
    assert len(made.wakes) == 1
    assert [item.state for item in last_summary(made).models] == [ModelState.READY]
    assert served(made, "again").token_ids == reference(TEXT, 8)


def test_a_request_that_comes_while_it_is_gone_waits():
    made = agent(losing={3})
    first = made.generate("first", text=TEXT, max_tokens=8)
    while not made.wakes:
        made.run(until=made.now + 0.01, idle=False)
    second = made.generate("second", text=TEXT, max_tokens=8)
    made.run()
    assert first.token_ids == second.token_ids == reference(TEXT, 8)


def test_a_model_that_is_unloaded_as_the_engine_goes_is_absent():
    made = agent()
    served(made)
    made.engine.lost = True
    made.from_scheduler(Unload("chat"))
    made.run(until=made.now + 5.0, idle=False)
    assert last_summary(made).models == ()
    assert served(made, "again").token_ids == reference(TEXT, 8)


def test_an_engine_that_does_not_come_at_once_is_tried_again():
    made = agent(losing={3})
    made.engine.wakes_failing = 2
    seen = served(made)
    assert seen.token_ids == reference(TEXT, 8)
    gaps_s = [b - a for a, b in zip(made.wakes, made.wakes[1:], strict=False)]
    assert gaps_s == pytest.approx([WAKE_S + 0.5, WAKE_S + 1.0], abs=0.05)


def test_after_so_many_losses_requests_end_and_the_agent_leaves():
    made = agent(losing={3}, agent=AgentConfig(engine_failures_max=3))
    made.engine.wakes_failing = 10
    seen = made.generate(text=TEXT)
    made.run()
    assert isinstance(seen.end, Failed)
    assert seen.end.error.code == "agent_lost"
    assert made.given_up is not None
    assert any(isinstance(message, Leave) for _, message in made.to_scheduler)
    assert len(made.wakes) == 2


def test_losses_that_lie_far_apart_do_not_count_together():
    made = agent(agent=AgentConfig(engine_failures_max=2, engine_window_s=10.0))
    for number in range(4):
        served(made, f"r{number}")
        made.engine.lost = True
        made.run(until=made.now + 20.0, idle=False)
    assert made.given_up is None
    assert len(made.wakes) == 4


def test_a_request_that_always_kills_the_engine_ends_and_the_others_go_on():
    made = agent(losing={1, 2, 3})
    poison = made.generate("poison", text=TEXT, max_tokens=8)
    made.run()
    assert isinstance(poison.end, Failed)
    assert poison.end.error.code == "engine_lost"
    assert served(made, "good").token_ids == reference(TEXT, 8)


def test_a_model_that_does_not_come_back_ends_its_requests():
    made = agent(losing={5})
    seen = made.generate(text=TEXT)
    made.run(until=LOAD_S + 0.001, idle=False)
    assert not made.wakes
    made.device.memory_bytes = 1  # somebody else has taken it
    made.run()
    assert isinstance(seen.end, Failed)
    assert seen.end.error.code == "device"
    assert made.logic.scheduler.lanes == {}
