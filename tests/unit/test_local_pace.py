"""Latest starts, releases, rolled deadlines, the paper's score: against brute force and by hand."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from festina.control.pace import (
    DecodeGroup,
    latest_starts,
    paper_score,
    release_at,
    rolled_deadline,
)

GROUPS = st.lists(
    st.builds(
        lambda index, due, pace, latency: (due, due * pace, latency),
        st.integers(),
        st.floats(0.01, 1.0),
        st.floats(0.0, 1.0),
        st.floats(1.0, 100.0),
    ),
    min_size=1,
    max_size=5,
)


def named(groups):
    return [DecodeGroup(f"m{i}", *group) for i, group in enumerate(groups)]


def run_from(start, order):
    """Whether all are in time when run in this order from `start`."""
    for group in order:
        start += group.latency_ms / 1e3
        if start > group.due_at + 1e-12:
            return False
    return True


@given(GROUPS)
def test_the_first_latest_start_is_the_latest_that_any_order_allows(groups):
    groups = named(groups)
    _, start = latest_starts(groups)[0]
    assert run_from(start - 1e-9, [group for group, _ in latest_starts(groups)])
    later = start + 1e-6
    assert not any(run_from(later, order) for order in itertools.permutations(groups))


@given(GROUPS)
def test_a_release_is_never_after_the_latest_start(groups):
    for group, start in latest_starts(named(groups)):
        assert release_at(group, start) <= start


@given(st.floats(0.0, 1e4), st.floats(0.01, 10.0), st.floats(0.0, 1e4))
def test_a_rolled_deadline_lies_ahead_and_before_twice_the_age(start, objective, wait):
    now = start + wait
    deadline = rolled_deadline(start, objective, now)
    assert deadline >= now
    assert deadline - start <= max(objective, 2.0 * wait) + 1e-9


@pytest.mark.parametrize(("start", "objective"), [(1e5, 0.0), (-1e22, 0.0), (-1e300, 1e-30)])
def test_an_objective_that_vanishes_beside_the_clock_still_gets_a_deadline(start, objective):
    assert rolled_deadline(start, objective, 1e5 + 1.0) >= 1e5 + 1.0


def test_the_papers_score_is_the_share_of_the_remaining_slack():
    assert paper_score(10.0, 100.0, 20.0, 0.0) == 0.1
    assert paper_score(10.0, 100.0, 50.0, 1.0) == 0.2


def test_no_slack_left_is_most_urgent():
    assert paper_score(10.0, 100.0, 100.0, 1.0) == math.inf
    assert paper_score(10.0, -5.0, 0.0, 0.0) == math.inf
