"""The adapter of the native local rule: random lanes of one device, read and answered rightly."""

import math

import numpy as np
import pytest

from festina import _core
from festina.control.choice import Choice, LocalRules, Wait, predict_s, step_work
from festina.control.lane import Lane
from festina.control.lengths import LengthPredictor
from festina.control.local_festina import FestinaRule
from festina.control.profile import ProfileTable, shipped_profiles
from festina.control.profiled import ProfiledStepTime
from festina.control.sequence import Sequence
from festina.control.step_time import LearnedStepTime, StepTimePrior
from festina.engine.blocks import BlockManager
from festina.types import OperatingPoint, Slo

POINT = OperatingPoint(1395, 132)
NOW_S = 1000.0
RULES = LocalRules(batch_max=8, chunk_tokens=256, margin=0.1, sigmas=1.0)
PRIOR = StepTimePrior(8.0, 0.05, 0.05, 0.0001)


@pytest.fixture(scope="module")
def table():
    return ProfileTable.load(shipped_profiles() / "H100-SXM5-80GB")


def lane_named(model, step_time, blocks=10_000):
    return Lane(model, BlockManager(blocks), 16, step_time, LengthPredictor())


def sequence(lane, number, **fields):
    fields = {
        "token_ids": [0] * 50,
        "prompt_tokens": 50,
        "max_tokens": 100,
        "slo": Slo(2000.0, 100.0),
        "pace": 1.0,
        "submitted_at": NOW_S,
        "predicted_tokens": 50,
        **fields,
    }
    return Sequence(number=number, model=lane.model, **fields)


def add_decode(lane, number, last_token_at=NOW_S, **fields):
    seq = sequence(lane, number, prompt_tokens=40, **fields)
    seq.cached, seq.last_token_at = 49, last_token_at
    seq.blocks = lane.pool.allocate(lane.blocks_for(seq.cached))
    lane.running[number] = seq
    return seq


def add_prompt(lane, number, tokens=50, **fields):
    seq = sequence(lane, number, token_ids=[0] * tokens, prompt_tokens=tokens, **fields)
    lane.waiting[number] = seq
    return seq


def random_lanes(rng, table):
    lanes = []
    for index in range(int(rng.integers(1, 4))):
        profiled = rng.random() < 0.5
        step_time = ProfiledStepTime(table, table.models[0]) if profiled else LearnedStepTime(PRIOR)
        lane = lane_named(f"m{index}", step_time)
        lane.last_step_at = NOW_S - float(rng.uniform(0.0, 1.0))
        for number in range(int(rng.integers(0, 20))):
            slo = Slo(float(rng.uniform(100, 3000)), float(rng.uniform(20, 200)))
            if rng.random() < 0.7:
                last = NOW_S - float(rng.uniform(0.0, 0.15))
                pace = float(rng.uniform(0.0, 1.0))
                seq = add_decode(lane, number, last, slo=slo, pace=pace)
                seq.outgrown = bool(rng.random() < 0.1)
                seq.in_step = bool(rng.random() < 0.1)
            else:
                tokens = int(rng.integers(1, 600))
                asked = NOW_S - float(rng.uniform(0.0, 4.0))
                add_prompt(lane, number, tokens, slo=slo, submitted_at=asked)
        lanes.append(lane)
    return lanes


def test_random_choices_are_of_the_lane_within_a_batch_and_most_urgent_first(table):
    rng = np.random.default_rng(5)
    rule = FestinaRule(RULES)
    steps = waits = 0
    for _ in range(400):
        lanes = random_lanes(rng, table)
        chosen = rule.choose(lanes, POINT, int(rng.integers(1, 4)), NOW_S)
        free = [seq for lane in lanes for seq in lane.decodes()]
        prompts = [seq for lane in lanes for seq in lane.prefills()]
        if isinstance(chosen, Wait):
            waits += 1
            assert not prompts  # memory is plenty: with a prompt there is a step to run
            assert chosen.until > NOW_S
            soonest = min((seq.paced_at(RULES.margin) for seq in free), default=math.inf)
            assert chosen.until <= soonest
            continue
        steps += 1
        check(chosen)
    assert steps > 200
    assert waits > 5


def check(chosen):
    lane = chosen.lane
    decodes, prefills = chosen.decodes, chosen.prefills
    assert 1 <= len(decodes) + len(prefills) <= RULES.batch_max
    assert len({seq.number for seq in (*decodes, *(seq for seq, _ in prefills))}) == len(
        decodes
    ) + len(prefills)
    assert all(seq in lane.decodes() for seq in decodes)
    if prefills and decodes:  # those that a step takes along are the first batch
        order = sorted(lane.decodes(), key=lambda seq: (not seq.outgrown, seq.due_at(RULES.margin)))
        assert list(decodes) == order[: len(decodes)]
    waiting = list(lane.prefills())
    assert all(seq in waiting and 1 <= tokens <= seq.pending_tokens for seq, tokens in prefills)
    assert sum(tokens for _, tokens in prefills) <= RULES.chunk_tokens
    assert all(tokens == seq.pending_tokens for seq, tokens in prefills[:-1])


@pytest.mark.parametrize("kind", ["profile", "stand-in"])
def test_a_lone_batch_is_released_to_end_at_its_pace(table, kind):
    profiled = kind == "profile"
    step_time = ProfiledStepTime(table, table.models[0]) if profiled else LearnedStepTime(PRIOR)
    lane = lane_named("m", step_time)
    seq = add_decode(lane, 0, pace=0.8)
    chosen = FestinaRule(RULES).choose([lane], POINT, 1, NOW_S)
    ends_at = seq.paced_at(RULES.margin) - predict_s(lane, [seq], (), POINT)
    assert chosen.until == pytest.approx(ends_at, abs=1e-6)
    later = FestinaRule(RULES).choose([lane], POINT, 1, chosen.until)
    assert later == Choice(lane, (seq,), ())


def test_corrections_of_the_profile_count_at_once(table):
    step_time = ProfiledStepTime(table, table.models[0])
    lane = lane_named("m", step_time)
    seq = add_decode(lane, 0)
    rule = FestinaRule(RULES)
    before = rule.choose([lane], POINT, 1, NOW_S).until
    for _ in range(20):
        late_ms = 2e3 * predict_s(lane, [seq], (), POINT)
        step_time.learn(step_work((seq,), ()), POINT, late_ms)
    assert rule.choose([lane], POINT, 1, NOW_S).until < before - 1e-3


def test_memory_that_runs_out_holds_prompts_back(table):
    lane = lane_named("m", ProfiledStepTime(table, table.models[0]), blocks=12)
    add_decode(lane, 0)  # 4 blocks, and as many as 100 tokens need: 7
    fits = add_prompt(lane, 1, tokens=20)
    chosen = FestinaRule(RULES).choose([lane], POINT, 1, NOW_S)
    assert [seq for seq, _ in chosen.prefills] == [fits]
    lane.waiting.clear()
    add_prompt(lane, 2, tokens=200)
    chosen = FestinaRule(RULES).choose([lane], POINT, 1, NOW_S)
    assert not chosen.prefills
    assert len(chosen.decodes) == 1  # not paced: it holds what others wait for


def test_nothing_to_do_waits_for_ever():
    assert FestinaRule(RULES).choose([], POINT, 1, NOW_S) == Wait(math.inf)


def test_lists_that_do_not_fit_the_lanes_are_refused():
    rule = FestinaRule(RULES)._native
    cost = LearnedStepTime().cost(POINT)
    with pytest.raises(ValueError, match="decodes holds 0 values"):
        rule.choose([cost], [1.0, 0.0, 0.0, 1.0, 0.0], [], [], 1)
    with pytest.raises(ValueError, match="prompts holds 1 values"):
        rule.choose([cost], [0.0, 0.0, 0.0, 1.0, 0.0], [], [1.0], 1)


def test_a_cost_outside_the_table_is_refused(table):
    with pytest.raises(ValueError, match="rung 99"):
        _core.StepCost.profiled(table.native, 0, 99, 0)
