"""The choice of one device's next step for 10 to 100 tasks: decodes and prompts of four models.

The paper reports 94 us for 100 tasks. Included: reading the sequences of all lanes, which is most
of it. The rival sorts the same tasks by deadline in Python and predicts nothing.
"""

import numpy as np
import pytest

from festina.control.choice import LocalRules
from festina.control.lane import Lane
from festina.control.lengths import LengthPredictor
from festina.control.local_festina import FestinaRule
from festina.control.profile import ProfileTable, shipped_profiles
from festina.control.profiled import ProfiledStepTime
from festina.control.sequence import Sequence
from festina.control.step_time import LearnedStepTime
from festina.engine.blocks import BlockManager
from festina.types import OperatingPoint, Slo

SIZES = (10, 25, 50, 100)
MODELS = 4
NOW_S = 100.0
POINT = OperatingPoint(1395, 132)
RULES = LocalRules(batch_max=32, chunk_tokens=512, margin=0.1)


def lanes_of(count, step_time):
    """One task in five is a prompt."""
    rng = np.random.default_rng(3)
    lanes = [
        Lane(f"m{i}", BlockManager(10_000), 16, step_time(i), LengthPredictor())
        for i in range(MODELS)
    ]
    for number in range(count):
        lane = lanes[number % MODELS]
        seq = Sequence(
            number=number,
            model=lane.model,
            token_ids=[0] * int(rng.integers(100, 1000)),
            prompt_tokens=90,
            max_tokens=2000,
            slo=Slo(2000.0, 100.0),
            pace=1.0,
            submitted_at=NOW_S - float(rng.uniform(0.0, 1.0)),
            predicted_tokens=400,
        )
        if rng.random() < 0.2:
            seq.prompt_tokens = len(seq.token_ids)
            lane.waiting[number] = seq
            continue
        seq.cached = len(seq.token_ids) - 1
        seq.blocks = lane.pool.allocate(lane.blocks_for(seq.cached))
        seq.last_token_at = NOW_S - float(rng.uniform(0.0, 0.08))
        lane.running[number] = seq
    return lanes


@pytest.fixture(scope="module")
def table():
    return ProfileTable.load(shipped_profiles() / "H100-SXM5-80GB")


@pytest.mark.parametrize("count", SIZES)
def test_choose_by_profile(benchmark, table, count):
    benchmark.group = f"local choice, {count} tasks"
    models = table.models
    lanes = lanes_of(count, lambda i: ProfiledStepTime(table, models[i % len(models)]))
    rule = FestinaRule(RULES)
    benchmark(rule.choose, lanes, POINT, 1, NOW_S)


@pytest.mark.parametrize("count", SIZES)
def test_choose_by_stand_in(benchmark, count):
    benchmark.group = f"local choice, {count} tasks"
    lanes = lanes_of(count, lambda _: LearnedStepTime())
    rule = FestinaRule(RULES)
    benchmark(rule.choose, lanes, POINT, 1, NOW_S)


@pytest.mark.parametrize("count", SIZES)
def test_rival_sorts_by_deadline(benchmark, count):
    benchmark.group = f"local choice, {count} tasks"
    lanes = lanes_of(count, lambda _: LearnedStepTime())

    def choose():
        tasks = [seq for lane in lanes for seq in (*lane.running.values(), *lane.waiting.values())]
        tasks.sort(key=lambda seq: seq.due_at(RULES.margin))
        return [seq for seq in tasks if seq.model == tasks[0].model][: RULES.batch_max]

    benchmark(choose)
