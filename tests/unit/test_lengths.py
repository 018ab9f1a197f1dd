"""Output lengths: padded quantiles in bounded state."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from festina.control.lengths import PADDING, LengthPredictor


def filled(lengths, **options):
    predictor = LengthPredictor(**options)
    for length in lengths:
        predictor.observe(length)
    return predictor


def test_nothing_is_predicted_before_enough_has_been_seen():
    assert filled([10] * 7).predict(500) == 500
    assert filled([10] * 8).predict(500) < 20


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.9, 0.98]))
def test_a_prediction_is_close_above_the_exact_quantile(seed, quantile):
    lengths = np.random.default_rng(seed).lognormal(4.5, 0.8, 400).astype(int) + 1
    predicted = filled(lengths, quantile=quantile, memory=0.999999).predict(10**6)
    low, high = np.quantile(lengths, [quantile - 0.005, quantile + 0.005], method="inverted_cdf")
    assert low <= predicted <= high * 2**0.25 * (1 + PADDING) + 1


@given(st.lists(st.integers(0, 5000), max_size=50), st.integers(1, 4000), st.integers(0, 3999))
def test_a_prediction_stays_within_its_bounds(lengths, max_tokens, generated):
    generated = min(generated, max_tokens - 1)
    assert generated < filled(lengths).predict(max_tokens, generated) <= max_tokens


def test_one_that_has_outgrown_the_rest_is_given_the_tail():
    predictor = filled([20] * 90 + [400] * 10, quantile=0.5, memory=0.999999)
    assert predictor.predict(1000) < 30
    assert predictor.predict(1000, generated=50) >= 400


def test_old_lengths_are_forgotten():
    predictor = filled([1000] * 500 + [10] * 2000, memory=0.99)
    assert predictor.predict(5000) < 15


def test_state_survives_more_samples_than_a_float_could_weigh():
    predictor = filled([64] * 50_000, memory=0.99)
    assert 64 <= predictor.predict(5000) < 90
