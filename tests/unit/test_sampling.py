import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from festina.engine.sampling import LOGPROB_MIN, all_logprobs, choose, sample, tell
from festina.types import Sampling

LOGITS = np.array([0.5, 3.0, -1.0, 3.0, 2.0, 1.0], np.float32)


def test_temperature_zero_takes_the_first_of_the_largest():
    assert choose(LOGITS, Sampling(), 0) == 1


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(-(2**70), 2**70), index=st.integers(0, 2**31))
def test_a_draw_depends_on_seed_and_index_alone(seed, index):
    sampling = Sampling(temperature=1.0, top_p=0.9, seed=seed)
    first = choose(LOGITS, sampling, index)
    choose(LOGITS, sampling, index + 1)
    assert choose(LOGITS.copy(), sampling, index) == first


def test_draws_follow_the_softmax_at_that_temperature():
    temperature, draws = 1.7, 4000
    counts = np.bincount(
        [choose(LOGITS, Sampling(temperature=temperature, seed=5), i) for i in range(draws)],
        minlength=len(LOGITS),
    )
    expected = np.exp(LOGITS / temperature)
    expected = draws * expected / expected.sum()
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert chi_squared < 20.5  # p = 0.001 at 5 degrees of freedom


def test_a_temperature_next_to_zero_is_greedy():
    logits = np.array([1.0, 20.0, 3.0, 2.0], np.float32)
    for top_p in (0.5, 1.0):
        assert choose(logits, Sampling(temperature=1e-308, top_p=top_p), 0) == 1


def test_neighbouring_indices_and_seeds_draw_independently():
    by_index = [choose(LOGITS, Sampling(temperature=2.0, seed=1), i) for i in range(64)]
    by_seed = [choose(LOGITS, Sampling(temperature=2.0, seed=s), 0) for s in range(64)]
    assert len(set(by_index)) > 3
    assert len(set(by_seed)) > 3


@pytest.mark.parametrize(("top_p", "allowed"), [(0.01, {1}), (0.5, {1, 3}), (0.8, {1, 3, 4})])
def test_top_p_keeps_the_fewest_tokens_that_hold_the_mass(top_p, allowed):
    sampling = Sampling(temperature=1.0, top_p=top_p, seed=3)
    assert {choose(LOGITS, sampling, i) for i in range(300)} == allowed


def test_extreme_logits_neither_overflow_nor_leave_the_vocabulary():
    logits = np.array([-3e38, 3e38, 0.0, -np.inf], np.float32)
    assert {choose(logits, Sampling(temperature=0.01, seed=s), 0) for s in range(20)} == {1}


def test_logprobs_are_the_softmax_whatever_the_temperature():
    chosen = sample(LOGITS, Sampling(temperature=3.0, top_p=0.5, seed=3, logprobs=6), 4)
    logprobs = np.log(np.exp(LOGITS, dtype=np.float64) / np.exp(LOGITS, dtype=np.float64).sum())
    assert chosen.logprobs.chosen == pytest.approx(logprobs[chosen.token_id])
    ids = [token for token, _ in chosen.logprobs.top]
    assert ids == [1, 3, 4, 5, 0, 2]  # the first of equals first
    assert [value for _, value in chosen.logprobs.top] == pytest.approx(logprobs[ids])


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=12).map(lambda v: np.array(v, np.float32)),
    st.integers(0, 20),
)
def test_the_likeliest_are_those_of_a_whole_sort(logits, count):
    told = tell(logits, 0, Sampling(logprobs=count))
    order = sorted(range(len(logits)), key=lambda index: (-logits[index], index))
    assert [token for token, _ in told.top] == order[:count]
    assert sum(np.exp(value) for _, value in told.top) < 1.0 + 1e-9


def test_what_cannot_be_is_told_in_a_number_that_json_has():
    logits = np.array([0.0, -np.inf, 1.0], np.float32)
    told = tell(logits, 1, Sampling(logprobs=3))
    assert told.chosen == LOGPROB_MIN
    assert told.top[-1] == (1, LOGPROB_MIN)


def test_nothing_is_told_that_nobody_asks_for():
    chosen = sample(LOGITS, Sampling(), 0)
    assert chosen.logprobs is None
    assert all_logprobs([chosen, None]) == ()
    asked = sample(LOGITS, Sampling(logprobs=0), 0)
    assert asked.logprobs.top == ()
    assert all_logprobs([chosen, None, asked]) == (None, None, asked.logprobs)
