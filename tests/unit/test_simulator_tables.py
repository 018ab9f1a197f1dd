"""What policies believe, what is true, and how far apart the two are."""

from dataclasses import astuple

import numpy as np
import pytest

from festina.device import physics
from festina.device.modelled_profile import modelled_rows
from festina.errors import BadRequestError, UnsupportedModelError
from festina.simulator.tables import (
    TRUTH_AXES,
    Bias,
    TruthSettings,
    belief_table,
    draw_bias,
    truth_table,
)
from festina.types import Phase

H100 = physics.gpu_named("h100")
SHAPES = ("llama-3b", "qwen-14b")
WORKS = {
    Phase.PREFILL: (physics.prefill_work, np.geomspace(16, 32768, 40), (0.0, 700.0, 5000.0)),
    Phase.DECODE: (physics.decode_work, np.arange(1, 257, 5), (64.0, 300.0, 1500.0, 20000.0)),
}


@pytest.fixture(scope="module")
def truth():
    return truth_table(H100, SHAPES)


def test_belief_is_the_profile_that_the_command_writes():
    table = belief_table(H100, ["yi-9b"])  # its context cuts knots off
    rows = [row for row in modelled_rows(H100, physics.model_named("yi-9b")) if row.sms > 0]
    for phase in Phase:
        mine = [row for row in rows if row.phase == phase.name.lower()]
        cells = table.cells("yi-9b", phase).ravel()
        assert len(cells) == len(mine)
        for name in ("latency_ms", "power_w", "flops_per_s", "bytes_per_s", "spread"):
            assert cells[name] == pytest.approx([getattr(row, name) for row in mine], rel=1e-5)
    assert table.native.idle_w == pytest.approx(physics.idle_w(H100, H100.clocks_mhz))
    assert table.model_info("yi-9b").weight_bytes == physics.model_named("yi-9b").resident_bytes


def test_axes_are_as_long_as_the_native_table_allows():
    assert max(map(len, astuple(TRUTH_AXES))) == 16


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("shape", SHAPES)
def test_truth_is_physics_within_5_percent_between_its_knots(truth, phase, shape):
    make_work, works0, works1 = WORKS[phase]
    work0, work1, rung, clock = (
        axis.ravel()
        for axis in np.meshgrid(
            works0, works1, range(len(truth.sms)), range(len(truth.clocks_mhz)), indexing="ij"
        )
    )
    sms, clocks_mhz = np.array(truth.sms)[rung], np.array(truth.clocks_mhz)[clock]
    point = physics.run(H100, make_work(physics.model_named(shape), work0, work1), sms, clocks_mhz)
    found = truth.estimate(truth.index(shape), int(phase), rung, clock, work0, work1)
    energy = found["latency_ms"] * found["power_w"]
    for ratio in (
        found["latency_ms"] / point.latency_ms,
        energy / (point.latency_ms * point.dynamic_w),
    ):
        error = np.abs(ratio - 1.0)
        assert error.max() < 0.05
        assert error.mean() < 0.01


def test_the_cap_is_found_once_for_all_clocks_as_for_each_by_itself():
    work = physics.prefill_work(physics.model_named("llama-8b"), np.array([[128], [4096]]))
    clocks = np.array(H100.clocks_mhz)
    limit = physics.capped_clock_mhz(H100, work, 132, H100.clock_max_mhz)
    together, alone = (
        physics.run(H100, work, 132, clocks, limit),
        physics.run(H100, work, 132, clocks),
    )
    assert np.any(alone.clock_mhz[1] < clocks)
    assert together.latency_ms == pytest.approx(alone.latency_ms, rel=1e-5)
    assert together.dynamic_w == pytest.approx(alone.dynamic_w, rel=1e-5)


def test_bias_is_lognormal_of_median_1_and_follows_its_seed():
    settings = TruthSettings()
    bias = draw_bias(20000, np.random.default_rng(3))
    for factors, sigma in ((bias.time, settings.time_sigma), (bias.power, settings.power_sigma)):
        assert factors.shape == (20000, 2)
        assert factors.dtype == np.float64
        assert np.median(factors) == pytest.approx(1.0, abs=0.003)
        assert np.log(factors).std() == pytest.approx(sigma, rel=0.02)
    again = draw_bias(20000, np.random.default_rng(3))
    assert np.array_equal(bias.time, again.time)
    assert np.array_equal(bias.power, again.power)


def test_without_spread_the_truth_is_the_profile():
    settings = TruthSettings(time_sigma=0.0, power_sigma=0.0)
    drawn, none = draw_bias(4, np.random.default_rng(0), settings), Bias.none(4)
    assert np.array_equal(drawn.time, none.time)
    assert np.array_equal(drawn.power, none.power)


@pytest.mark.parametrize("make", [belief_table, truth_table])
def test_a_shape_named_twice_or_unknown_is_a_typed_error(make):
    with pytest.raises(BadRequestError, match="shapes"):
        make(H100, ["llama-3b", "llama-3b"])
    with pytest.raises(UnsupportedModelError, match="llama-8b"):
        make(H100, ["llama-9000b"])
