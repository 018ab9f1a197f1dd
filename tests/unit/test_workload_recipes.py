"""The named workloads, as synthetic stand-ins, against what the traces give (WORKLOADS table)."""

import dataclasses
from dataclasses import astuple, dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from festina.device.physics import MODELS, gpu_named
from festina.errors import BadRequestError
from festina.simulator.workloads import OBJECTIVES, RECIPES, build_workload
from festina.simulator.workloads.day import DAY_ENVELOPE


@dataclass(frozen=True)
class Shape:
    """Requests/s (mean, peak minute, least minute), tokens/s per GPU, models active a minute.

    Input tokens are those that no prefix saves.
    """

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
        (workload.input_tokens - workload.cached_tokens)[kept].sum() / gpu_s,
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
    "azure-burst": Shape(6.0, 10.8, 4.0, 1054, 117, 18),
    "tenant-diurnal": Shape(4.4, 13.9, 1.6, 293, 46, 15),
    "code-agent-long": Shape(4.1, 10.4, 0.95, 1921, 57, 13),
    "arena-flash": Shape(7.9, 13.5, 6.2, 135, 253, 22),
}
"""What the traces give on 8 GPUs."""


@pytest.mark.parametrize("name", TABLE)
def test_stand_ins_have_the_shape_of_the_recorded_workload(name):
    """The median of several seeds: which functions and tenants are drawn moves a single one."""
    workloads = [build_workload(name, seed=seed) for seed in range(9)]
    assert all(workload.synthetic for workload in workloads)
    shapes = [astuple(shape_of(workload, gpus=8)) for workload in workloads]
    found, wanted = Shape(*np.median(shapes, axis=0)), TABLE[name]
    assert found.mean == pytest.approx(wanted.mean, rel=0.12)
    assert found.peak == pytest.approx(wanted.peak, rel=0.45)
    assert found.least == pytest.approx(wanted.least, rel=0.45)
    assert found.input_tokens == pytest.approx(wanted.input_tokens, rel=0.2)
    assert found.output_tokens == pytest.approx(wanted.output_tokens, rel=0.2)
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
    whole, scaled = build_workload(name, gpus=32), build_workload(name, gpus=32, load=load)
    assert len(scaled) == pytest.approx(load * len(whole), rel=0.15)
    assert scaled.duration_s == whole.duration_s


@pytest.mark.parametrize("name", RECIPES)
def test_256_gpus_get_32_times_the_traffic_of_8(name):
    small = np.median([len(build_workload(name, seed=seed)) for seed in range(5)])
    large = build_workload(name, gpus=256)
    assert len(large) == pytest.approx(32 * small, rel=0.15)
    assert len(large.deployments) == 32 * len(build_workload(name).deployments)
    assert len(np.unique(large.model)) > 0.6 * len(large.deployments)


@pytest.mark.parametrize("name", RECIPES)
def test_one_gpu_gets_its_share(name):
    counts = [len(build_workload(name, gpus=1, seed=seed)) for seed in range(9)]
    whole = np.median([len(build_workload(name, seed=seed)) for seed in range(5)])
    assert np.median(counts) == pytest.approx(whole / 8, rel=0.3)


@pytest.mark.parametrize("name", ["azure-burst", "tenant-diurnal", "arena-flash", "zipf-chat"])
def test_a_shared_day_keeps_the_total_and_moves_the_hours(name):
    plain, day = (build_workload(f"{name}{suffix}", gpus=64) for suffix in ("", "-day"))
    assert len(day) == pytest.approx(len(plain), rel=0.1)
    hours = np.histogram(day.arrival_ms / 1e3, 24, (0, day.duration_s))[0]
    assert np.corrcoef(hours, DAY_ENVELOPE)[0, 1] > 0.85


def test_closed_loops_follow_no_day():
    with pytest.raises(BadRequestError) as caught:
        build_workload("code-agent-long-day")
    assert caught.value.field == "workload"


def test_a_real_day_has_as_many_requests_a_second_as_one_told_in_an_hour():
    day, hour = build_workload("tenant-diurnal-24h"), build_workload("tenant-diurnal")
    assert day.duration_s == 86_400
    assert len(day) / day.duration_s == pytest.approx(len(hour) / hour.duration_s, rel=0.15)


def test_sessions_wait_for_their_answers_and_send_their_prefix_again():
    workload = build_workload("code-agent-long")
    following = np.flatnonzero(workload.follows >= 0)
    before = workload.follows[following]
    assert len(following) > 100
    assert len(np.unique(before)) == len(before)
    assert (workload.arrival_ms[following] <= 60_000).all()
    np.testing.assert_array_equal(workload.model[following], workload.model[before])
    assert np.median(workload.cached_tokens[following] / workload.input_tokens[following]) > 0.9
    opens = workload.follows < 0
    assert not workload.cached_tokens[opens].any()


def test_flashes_wake_cold_models():
    workload = build_workload("arena-flash")
    sent = workload.arrival_ms / 1e3
    for start in (1200, 2400):
        flash = (sent >= start) & (sent < start + 120)
        during = np.bincount(workload.model[flash], minlength=27)
        usual = np.bincount(workload.model[~flash], minlength=27) * 120 / 3480
        assert np.sort(during - usual)[-3:] == pytest.approx(240, rel=0.25)


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
        ("azure-burst-x", "workload"),
        ("tenant-diurnal-48h", "workload"),
        ("code-agent-long-x", "workload"),
        ("arena-flash-1", "workload"),
    ],
)
def test_an_unknown_name_or_variant_is_refused(name, field):
    with pytest.raises(BadRequestError) as caught:
        build_workload(name)
    assert caught.value.field == field
    assert caught.value.expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gpus", 0),
        ("load", 0.0),
        ("load", float("nan")),
        ("seed", -1),
        ("slo", "none"),
        ("replicas", 0),
        ("context_tokens", 1),
    ],
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


def test_a_shorter_context_shortens_requests_and_counts_them():
    plain = build_workload("steady-poisson", gpus=1)
    short = build_workload("steady-poisson", gpus=1, context_tokens=1000)
    total = plain.input_tokens + plain.output_tokens
    assert short.clipped == np.count_nonzero(total > 1000) > 0
    np.testing.assert_array_equal(short.input_tokens + short.output_tokens, np.minimum(total, 1000))


def test_a_gpu_without_room_for_a_model_is_refused():
    small = dataclasses.replace(gpu_named("h100"), memory_bytes=20 * 2**30)
    with pytest.raises(BadRequestError) as caught:
        build_workload("steady-poisson", gpu=small)
    assert caught.value.field == "gpu"
    assert "qwen-14b" in caught.value.message


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(RECIPES)),
    gpus=st.integers(1, 24),
    load=st.floats(0.05, 4.0),
    seed=st.integers(0, 2**63),
    slo=st.sampled_from(sorted(OBJECTIVES)),
)
def test_any_setting_gives_a_workload_that_keeps_its_promises(name, gpus, load, seed, slo):
    """`Workload` itself refuses columns that break its promises."""
    workload = build_workload(name, gpus=gpus, load=load, seed=seed, slo=slo)
    opens = workload.follows < 0
    assert (workload.arrival_ms[opens] < workload.duration_s * 1e3).all()
    assert len({each.name for each in workload.deployments}) == len(workload.deployments)
    assert workload.input_tokens.max(initial=1) <= 32_768
