"""Models that come and go while others are served."""

import itertools

import pytest
from virtual_agent import LOAD_S, VirtualAgent, deployment, reference, slo

from festina.messages import Load, Unload
from festina.types import ModelState

OUTPUTS = 200


def longest_gap_s(seen):
    return max(late - early for early, late in itertools.pairwise(seen.times))


@pytest.mark.parametrize("beside", [False, True])
def test_steps_wait_for_a_load_unless_the_engine_does_both(beside: bool):
    made = VirtualAgent(deployment(preload=True), deployment("other"), loads_beside=beside)
    made.run(1.0, idle=False)
    seen = made.generate(max_tokens=OUTPUTS, slo=slo())
    made.run(made.now + 0.3, idle=False)
    made.from_scheduler(Load("other"))
    made.run()
    assert seen.token_ids == reference("hello", OUTPUTS)
    assert made.loads == ["chat", "other"]
    assert (longest_gap_s(seen) < LOAD_S) == beside


def test_what_is_loaded_beside_a_step_is_served_as_soon_as_it_is_there():
    made = VirtualAgent(deployment(preload=True), deployment("other"), loads_beside=True)
    made.run(1.0, idle=False)
    first = made.generate(max_tokens=OUTPUTS, slo=slo())
    second = made.generate("s", "other", slo=slo())
    began = made.now
    made.run()
    assert LOAD_S < second.times[0] - began < 2 * LOAD_S
    assert second.times[0] < first.times[-1]
    assert made.taken_blocks() == 0


def test_a_model_that_goes_beside_a_step_comes_again_for_a_request():
    made = VirtualAgent(deployment(preload=True), deployment("other"), loads_beside=True)
    made.run(1.0, idle=False)
    chat = made.generate(max_tokens=OUTPUTS, slo=slo())
    made.generate("s", "other", slo=slo())
    made.run(made.now + 4 * LOAD_S, idle=False)
    made.from_scheduler(Unload("other"))
    made.run(made.now + 0.0005, idle=False)
    assert made.logic.models["other"].state is ModelState.UNLOADING
    again = made.generate("t", "other", slo=slo())
    made.run()
    assert chat.end is not None
    assert again.token_ids == reference("hello", 8)
    assert made.loads == ["chat", "other", "other"]


def test_a_model_that_does_not_fit_beside_steps_makes_another_one_go():
    names = [f"m{number}" for number in range(6)]
    made = VirtualAgent(
        *(deployment(name, weights="sim:qwen-14b", kv_tokens=1 << 14) for name in names),
        loads_beside=True,
    )
    for name in names:
        seen = made.generate(name, name, slo=slo(60_000.0))
        made.run()
        assert len(seen.token_ids) == 8
    resident = [item for item in made.logic.models if item.loaded is not None]
    assert 0 < len(resident) < len(names)
