"""The plan of a GPU's profile fits its time, and says how long it takes."""

import pytest

from festina.device import physics
from festina.engine.gpu_plan import (
    FULL_S,
    POINT_S,
    QUICK_S,
    SWEEP_MHZ,
    GpuRoom,
    expected_step_ms,
    gpu_plan,
)
from festina.engine.profile_plan import POINT_EXTRA_S, Point, ProfilePlan, expected_s
from festina.errors import BadRequestError

HOPPER_CLOCKS = tuple(range(345, 1981, 15))
SIZES = ("llama-3b", "llama-8b", "mistral-7b", "qwen-14b", "llama-13b", "yi-9b")


def room_of(gpu, model, clocks_mhz=()):
    kv_tokens = int(0.8 * (gpu.memory_bytes - model.resident_bytes) / model.kv_bytes_per_token)
    return GpuRoom(gpu.sms_ladder, gpu.clock_max_mhz, clocks_mhz, kv_tokens, model.context_tokens)


def plan_of(kind, name, *, quick=False, clocks_mhz=(), modelled=True):
    gpu, model = physics.gpu_named(kind), physics.model_named(name)
    room = room_of(gpu, model, clocks_mhz)
    plan, seconds = gpu_plan(room, expected_step_ms(gpu, model), quick=quick, modelled=modelled)
    return room, plan, seconds


@pytest.mark.parametrize("kind", ["h100", "h200", "a100"])
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("clocks_mhz", [(), HOPPER_CLOCKS])
def test_a_whole_profile_takes_at_most_forty_minutes_with_every_rung(kind, name, clocks_mhz):
    room, plan, seconds = plan_of(kind, name, clocks_mhz=clocks_mhz)
    points = plan.points(room.sms, (room.clock_mhz,))
    assert seconds <= FULL_S == 2400.0
    assert {point.sms for point in points} == {0, *room.sms}
    assert max(point.kv_tokens for point in points) <= room.kv_tokens
    assert max(point.sequence_tokens for point in points) <= room.context_tokens
    works = [point for point in points if point.phase != "idle"]
    assert seconds > len(works) * (POINT_S + POINT_EXTRA_S)
    assert plan.point_s >= 5.0


@pytest.mark.parametrize("name", SIZES)
def test_a_quick_one_takes_at_most_six_minutes_with_three_rungs(name):
    room, plan, seconds = plan_of("h100", name, quick=True)
    assert seconds <= QUICK_S == 360.0
    assert plan.sms == (16, 80, 132)
    assert {point.sms for point in plan.points(room.sms, (1980,))} == {0, *plan.sms}


def test_lower_clocks_are_measured_where_they_can_be_set_on_the_whole_device():
    room, plan, _ = plan_of("h100", "llama-8b", clocks_mhz=HOPPER_CLOCKS)
    swept = [one for one in plan.points(room.sms, (1980,)) if one.clock_mhz != 1980]
    assert {one.clock_mhz for one in swept} == set(SWEEP_MHZ)
    assert {one.sms for one in swept} == {0, 132}
    assert {one.phase for one in swept} == {"idle", "prefill", "decode"}
    _, observed, _ = plan_of("h100", "llama-8b")
    assert observed.sweep is None


def test_a_gpu_that_physics_does_not_know_gets_a_full_grid_that_fits():
    room, plan, _ = plan_of("h100", "llama-8b", modelled=False)
    points = plan.points(room.sms, (1980,))
    each = len(plan.prefill_tokens) * len(plan.prefill_cached)
    each += len(plan.decode_batches) * len(plan.decode_contexts)
    assert len(points) == 1 + each * len(room.sms)


def test_a_model_that_leaves_no_room_is_refused():
    gpu = physics.gpu_named("h100")
    room = GpuRoom(gpu.sms_ladder, 1980, (), 16, 4096)
    step_ms = expected_step_ms(gpu, physics.model_named("llama-13b"))
    with pytest.raises(BadRequestError, match="16 tokens of KV cache"):
        gpu_plan(room, step_ms, quick=False)


def test_expected_time_is_the_window_or_the_repeats_whichever_is_longer():
    plan = ProfilePlan(repeats=3, warm_up=2, point_s=5.0, settle_s=0.3)
    short, long = Point("decode", 132, 1980, 1, 64), Point("prefill", 16, 1980, 8192, 0)
    step_ms = {short: 10.0, long: 4000.0}.get
    assert expected_s(plan, [short], step_ms) == pytest.approx(0.3 + 5.01 + POINT_EXTRA_S)
    assert expected_s(plan, [long], step_ms) == pytest.approx(8.0 + 12.0 + POINT_EXTRA_S)


def test_kv_tokens_are_whole_blocks_of_every_sequence():
    assert Point("decode", 132, 0, 4, 16).kv_tokens == 4 * 32
    assert Point("prefill", 132, 0, 100, 12).kv_tokens == 112


def test_points_beyond_the_pool_are_left_out():
    plan = ProfilePlan(decode_batches=(1, 32), decode_contexts=(16, 2016), kv_tokens_max=2048)
    found = {(p.tokens, p.context) for p in plan.points((1,), (0,)) if p.phase == "decode"}
    assert found == {(1, 16), (1, 2016), (32, 16)}
    assert plan.kv_tokens == 2048
