"""The named workloads, as synthetic stand-ins, against what the traces give (WORKLOADS table)."""

from dataclasses import dataclass

import numpy as np
import pytest

from festina.device.physics import MODELS
from festina.errors import BadRequestError
from festina.simulator.workloads import RECIPES, build_workload


@dataclass(frozen=True)
class Shape:
    """Requests/s (mean, peak minute, least minute), tokens/s per GPU, models active a minute."""

    mean: float
    peak: float
    least: float
    input_tokens: float
    output_tokens: float
    active: float


def shape_of(workload, gpus):
    sent = sent_s(workload)
    kept = sent < workload.duration_s
    minute = (sent[kept] // 60).astype(int)
    minutes = int(workload.duration_s // 60)
    rate = np.bincount(minute, minlength=minutes) / 60
    pairs = np.unique(np.stack([minute, workload.model[kept]]), axis=1)
    gpu_s = workload.duration_s * gpus
    return Shape(
        kept.sum() / workload.duration_s,
        rate.max(),
        rate.min(),
        workload.input_tokens[kept].sum() / gpu_s,
        workload.output_tokens[kept].sum() / gpu_s,
        pairs.shape[1] / minutes,
    )


def sent_s(workload):
    """Sending times if every request of a closed loop took 20 ms per output token."""
    sent = workload.arrival_ms / 1e3
    for row in np.flatnonzero(workload.follows >= 0):
        before = workload.follows[row]
        sent[row] += sent[before] + 0.02 * workload.output_tokens[before]
    return sent


TABLE = {
    "steady-poisson": Shape(8.0, 9.0, 7.3, 683, 287, 32),
    "zipf-chat": Shape(8.0, 9.0, 6.4, 1194, 201, 26),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_stand_in_has_the_shape_of_the_recorded_workload(name):
    workload = build_workload(name)
    assert workload.synthetic
    found, wanted = shape_of(workload, gpus=8), TABLE[name]
    assert found.mean == pytest.approx(wanted.mean, rel=0.1)
    assert found.peak == pytest.approx(wanted.peak, rel=0.25)
    assert found.least == pytest.approx(wanted.least, rel=0.35)
    assert found.input_tokens == pytest.approx(wanted.input_tokens, rel=0.15)
    assert found.output_tokens == pytest.approx(wanted.output_tokens, rel=0.15)
    assert found.active == pytest.approx(wanted.active, rel=0.15)


@pytest.mark.parametrize("name", RECIPES)
def test_the_seed_decides_every_column(name):
    first, again, other = (build_workload(name, gpus=2, seed=seed) for seed in (7, 7, 8))
    for column in ("arrival_ms", "model", "input_tokens", "output_tokens", "follows"):
        np.testing.assert_array_equal(getattr(first, column), getattr(again, column))
    assert not np.array_equal(first.arrival_ms[:50], other.arrival_ms[:50])


@pytest.mark.parametrize("name", RECIPES)
def test_requests_fit_their_models(name):
    workload = build_workload(name)
    context = np.array([MODELS[each.shape].context_tokens for each in workload.deployments])
    assert (workload.input_tokens + workload.output_tokens <= context[workload.model]).all()


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("load", [0.5, 2.0])
def test_load_multiplies_the_rate(name, load):
    whole, scaled = build_workload(name, gpus=16), build_workload(name, gpus=16, load=load)
    assert len(scaled) == pytest.approx(load * len(whole), rel=0.12)
    assert scaled.duration_s == whole.duration_s


@pytest.mark.parametrize("name", RECIPES)
def test_256_gpus_get_32_times_the_traffic_of_8(name):
    small, large = build_workload(name), build_workload(name, gpus=256)
    assert len(large) == pytest.approx(32 * len(small), rel=0.15)
    assert len(large.deployments) == pytest.approx(32 * len(small.deployments), rel=0.01)


def test_variants_of_steady_poisson():
    plain = shape_of(build_workload("steady-poisson"), 8)
    long_input = shape_of(build_workload("steady-poisson-ix2"), 8)
    long_output = shape_of(build_workload("steady-poisson-ox2"), 8)
    slow = shape_of(build_workload("steady-poisson-r0.1"), 8)
    assert long_input.input_tokens == pytest.approx(2 * plain.input_tokens, rel=0.03)
    assert long_input.output_tokens == pytest.approx(plain.output_tokens, rel=0.03)
    assert long_output.output_tokens == pytest.approx(2 * plain.output_tokens, rel=0.03)
    assert slow.mean == pytest.approx(3.2, rel=0.05)


def test_a_larger_exponent_leaves_fewer_models_active():
    active = [
        shape_of(build_workload(f"zipf-chat{suffix}"), 8).active for suffix in ("-0.9", "", "-2.1")
    ]
    assert active == sorted(active, reverse=True)
    assert active[0] > active[2] * 1.5


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("no-such", "workload"),
        ("steady-poisson-fast", "workload"),
        ("steady-poisson-r0", "workload"),
        ("steady-poisson-", "workload"),
        ("zipf-chat-x", "workload"),
        ("zipf-chat-nan", "workload"),
    ],
)
def test_an_unknown_name_or_variant_is_refused(name, field):
    with pytest.raises(BadRequestError) as caught:
        build_workload(name)
    assert caught.value.field == field
    assert caught.value.expected


@pytest.mark.parametrize(
    ("field", "value"),
    [("gpus", 0), ("load", 0.0), ("load", float("nan")), ("seed", -1), ("slo", "none")],
)
def test_a_bad_setting_is_refused(field, value):
    with pytest.raises(BadRequestError) as caught:
        build_workload("steady-poisson", **{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize("name", RECIPES)
def test_a_folder_without_the_file_is_named(name, tmp_path):
    with pytest.raises(BadRequestError) as caught:
        build_workload(name, traces=tmp_path)
    assert caught.value.field == "traces"
    assert str(tmp_path) in caught.value.message
