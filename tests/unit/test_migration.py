"""What moves cost, which way is chosen, and who goes where."""

import itertools

import numpy as np
import pytest

from festina.control.migration import (
    MoveCost,
    Route,
    assign,
    choose,
    copy_cost,
    recompute_cost,
    remaining_ms,
)
from festina.control.sequence import Sequence
from festina.control.step_time import LearnedStepTime, StepTimePrior
from festina.types import OperatingPoint, Slo

POINT = OperatingPoint(1980, 132)
ROUTE = Route(bytes_per_s=1e9, hold_w=100.0, prefill_w=400.0)


def step_time(prefill_token_ms=0.1):
    return LearnedStepTime(StepTimePrior(5.0, prefill_token_ms, 0.1, 0.0001))


def sequence(tokens=200, outputs=10, cached=None, **fields):
    return Sequence(
        number=1,
        model="chat",
        token_ids=[1] * tokens,
        prompt_tokens=tokens - outputs,
        max_tokens=500,
        slo=Slo(1000.0, 100.0),
        pace=fields.pop("pace", 0.0),
        submitted_at=0.0,
        predicted_tokens=fields.pop("predicted_tokens", 100),
        cached=tokens - 1 if cached is None else cached,
    )


def test_a_copy_costs_what_its_bytes_take():
    small, large = copy_cost(1e6, ROUTE), copy_cost(1e9, ROUTE)
    assert large.duration_ms - small.duration_ms == pytest.approx(999.0)
    assert large.energy_j > small.energy_j > 0
    fast = copy_cost(1e9, Route(1e10, ROUTE.hold_w, ROUTE.prefill_w))
    assert fast.duration_ms < large.duration_ms
    assert fast.energy_j < large.energy_j


def test_recomputing_costs_more_with_every_token_and_less_in_larger_chunks():
    costs = [recompute_cost(n, 64, step_time(), POINT, ROUTE) for n in (0, 1, 64, 65, 1000)]
    energies = [cost.energy_j for cost in costs]
    assert energies == sorted(energies)
    coarse = recompute_cost(1000, 512, step_time(), POINT, ROUTE)
    assert coarse.duration_ms < costs[-1].duration_ms


def test_short_contexts_on_slow_links_are_recomputed_and_long_ones_on_fast_links_copied():
    slow = Route(1e7, 100.0, 400.0)
    bytes_per_token = 131072

    def best(tokens, route):
        ways = (
            copy_cost(tokens * bytes_per_token, route),
            recompute_cost(tokens, 512, step_time(), POINT, route),
        )
        return choose(ways, 1e9).method

    assert best(100, slow) == "recompute"
    assert best(100, Route(5e10, 100.0, 400.0)) == "copy"
    assert best(4000, ROUTE) == "copy"


def test_what_ends_sooner_than_its_move_stays():
    ways = (MoveCost("copy", 100.0, 1.0), MoveCost("recompute", 300.0, 0.5))
    assert choose(ways, 50.0) is None
    assert choose(ways, 100.0) is None
    assert choose(ways, 200.0).method == "copy"
    assert choose(ways, 400.0).method == "recompute"
    assert choose((), 400.0) is None


def test_what_remains_grows_with_predicted_output_pace_and_prompt_to_go():
    base = remaining_ms(sequence(), step_time(), POINT, 1)
    assert remaining_ms(sequence(predicted_tokens=200), step_time(), POINT, 1) > 1.5 * base
    paced = remaining_ms(sequence(pace=1.0), step_time(), POINT, 1)
    assert paced == pytest.approx(90 * 100.0)
    fresh = sequence(outputs=0, cached=0)
    assert remaining_ms(fresh, step_time(), POINT, 1) > base
    outgrown = sequence(predicted_tokens=5)
    assert remaining_ms(outgrown, step_time(), POINT, 1) > 0


def test_nobody_can_do_better_than_the_assignment():
    rng = np.random.default_rng(3)
    for _ in range(30):
        sizes = rng.uniform(1.0, 100.0, 4)
        speeds = rng.uniform(1.0, 10.0, (4, 3))
        room = [2, 1, 2]
        where = assign(list(sizes), speeds, room)
        assert all(where.count(target) <= room[target] for target in range(3))
        took = sum(sizes[row] / speeds[row, target] for row, target in enumerate(where))
        best = min(
            sum(sizes[row] / speeds[row, target] for row, target in enumerate(way))
            for way in itertools.product(range(3), repeat=4)
            if all(way.count(target) <= room[target] for target in range(3))
        )
        assert took == pytest.approx(best)


def test_where_room_is_short_the_largest_stay():
    speeds = np.ones((3, 2))
    assert assign([5.0, 1.0, 3.0], speeds, [1, 1]) in ([None, 0, 1], [None, 1, 0])
    assert assign([5.0, 1.0, 3.0], speeds, [0, 0]) == [None, None, None]
    assert assign([], np.ones((0, 2)), [1, 1]) == []


@pytest.mark.parametrize("speeds", [np.ones((2, 1)), np.zeros((1, 1)), np.full((1, 1), np.inf)])
def test_bandwidths_that_are_none_are_refused(speeds):
    with pytest.raises(ValueError, match="bandwidth"):
        assign([1.0], speeds, [1])
