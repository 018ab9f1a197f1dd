"""The learned duration of steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from festina.control.step_time import LearnedStepTime, StepTimePrior, StepWork, predict_ms
from festina.types import OperatingPoint

POINT = OperatingPoint(0, 1)


def machine(work):
    return 25.0 + 2.8 * work.prefill_tokens + 1.5 * work.decodes + 0.003 * work.context_tokens


def random_work(rng):
    return StepWork(int(rng.integers(0, 129)), int(rng.integers(0, 17)), int(rng.integers(0, 8000)))


def taught(steps, speed=machine, seed=0, model=None):
    rng = np.random.default_rng(seed)
    model = model or LearnedStepTime()
    for _ in range(steps):
        work = random_work(rng)
        model.learn(work, POINT, speed(work) * float(np.exp(rng.normal(0.0, 0.03))))
    return model


def test_it_finds_the_machines_coefficients_within_a_hundred_steps():
    model = taught(100)
    for work in (StepWork(0, 1, 100), StepWork(128, 0, 0), StepWork(32, 8, 4000)):
        assert predict_ms(model.cost(POINT), work) == pytest.approx(machine(work), rel=0.15)


def test_it_follows_a_machine_that_becomes_slower():
    model = taught(300)
    taught(300, lambda work: 2.0 * machine(work), seed=1, model=model)
    work = StepWork(64, 4, 1000)
    assert predict_ms(model.cost(POINT), work) == pytest.approx(2.0 * machine(work), rel=0.15)


def test_a_long_spell_of_equal_steps_does_not_spoil_the_rest():
    model = taught(200)
    for _ in range(4000):
        model.learn(StepWork(0, 4, 2000), POINT, machine(StepWork(0, 4, 2000)))
    for work in (StepWork(128, 0, 0), StepWork(64, 8, 3000)):
        assert predict_ms(model.cost(POINT), work) == pytest.approx(machine(work), rel=0.5)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 200), st.integers(0, 20), st.integers(0, 9000))
def test_more_work_never_looks_cheaper_whatever_was_measured(seed, prefill, decodes, context):
    rng = np.random.default_rng(seed)
    model = LearnedStepTime(StepTimePrior())
    for _ in range(50):
        model.learn(random_work(rng), POINT, float(rng.uniform(0.1, 500.0)))
    small = predict_ms(model.cost(POINT), StepWork(prefill, decodes, context))
    large = predict_ms(model.cost(POINT), StepWork(prefill + 16, decodes + 1, context + 64))
    assert 0.0 < small <= large < 1e7
