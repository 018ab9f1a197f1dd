import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from festina.report.stats import Outcome, percentile, summarise
from festina.types import Provenance, Slo, Usage

SLO = Slo(ttft_ms=100.0, tbt_ms=50.0)


def outcome(ttft_ms=80.0, gaps_ms=(40.0,), *, model="a", usage=True, error="", source="modelled"):
    times = (np.cumsum([ttft_ms, *gaps_ms]) / 1e3).tolist()
    cost = Usage(10, len(times), 2.0, Provenance(source), preemptions=1) if usage else None
    return Outcome(model, SLO, 5.0, tuple(5.0 + t for t in times), cost, error)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.floats(0.1, 100))
def test_the_percentile_is_the_nearest_rank(values, share):
    expected = np.percentile(values, share, method="inverted_cdf")
    rank = math.ceil(len(values) * share / 100)
    assert percentile(values, share) == sorted(values)[rank - 1]
    assert percentile(values, share) == pytest.approx(expected) or len(values) * share % 100 < 1e-6


def test_the_p99_of_fewer_than_100_values_is_the_largest():
    assert percentile(list(range(99)), 99) == 98
    assert percentile(list(range(100)), 99) == 98
    assert percentile([3.0], 99) == 3.0


@pytest.mark.parametrize(("values", "share"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_percentiles_of_nothing_are_refused(values, share):
    with pytest.raises(ValueError):
        percentile(values, share)


@pytest.mark.parametrize(
    ("one", "attained"),
    [
        (outcome(), True),
        (outcome(ttft_ms=101), False),
        (outcome(gaps_ms=()), True),
        (outcome(gaps_ms=[10] * 98 + [51]), False),
        (outcome(gaps_ms=[10] * 99 + [51]), True),
        (outcome(gaps_ms=[10] * 98 + [51, 51]), False),
        (outcome(usage=False), False),
        (Outcome("a", SLO, 0.0, (), None, "overloaded"), False),
    ],
)
def test_a_request_attains_by_ttft_and_the_p99_of_its_gaps(one, attained):
    assert one.attained is attained


def test_the_summary_counts_refused_requests_against_attainment():
    refused = Outcome("a", SLO, 0.0, (), None, "overloaded")
    (stats,) = summarise([outcome(), outcome(ttft_ms=200), refused, refused], duration_s=2.0)
    assert (stats.submitted, stats.completed, stats.attainment) == (4, 2, 0.25)
    assert stats.errors == {"overloaded": 2}
    assert stats.output_tokens == 4
    assert stats.output_tokens_per_s == 2.0
    assert stats.input_tokens == 20
    assert stats.preemptions == 2
    assert stats.ttft.p50_ms == pytest.approx(80)
    assert stats.ttft.p99_ms == pytest.approx(200)
    assert stats.slo == {"ttft_ms": 100.0, "tbt_ms": 50.0}


def test_joules_of_different_provenance_are_not_added_up():
    (stats,) = summarise([outcome(), outcome(source="measured"), outcome()], duration_s=1.0)
    assert stats.energy_j == {"modelled": 4.0, "measured": 2.0}


def test_deployments_are_summarised_apart_in_order_of_name():
    stats = summarise([outcome(model="b"), outcome(model="a")], duration_s=1.0)
    assert [one.model for one in stats] == ["a", "b"]


def test_a_deployment_without_tokens_has_no_percentiles():
    (stats,) = summarise([Outcome("a", SLO, 0.0, (), None, "engine")], duration_s=1.0)
    assert stats.ttft.p50_ms is None
    assert stats.tbt.p99_ms is None
