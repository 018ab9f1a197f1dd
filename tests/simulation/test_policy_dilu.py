"""Dilu: packed onto few GPUs, SM quotas that follow demand, instances that follow what lasts."""

import pytest
from policy_runs import all_ended_well, most_sms, overlapping, play, random_rows, spans, workload_of

from festina.simulator.workloads import build_workload

FOUR = ("llama-8b", "llama-3b", "llama-8b", "llama-3b")
SMS = 132


def steps_of(result, model=None):
    return [s for s in spans(result, model=model) if s.name in ("prefill", "decode")]


def test_few_models_are_packed_onto_few_gpus():
    workload = workload_of(random_rows(4, 0.1, 60, 1), FOUR)
    result = play("dilu", workload, gpus=4)
    assert all_ended_well(result, workload)
    assert {s.gpu for s in steps_of(result)} == {0}
    assert result.gpus_awake_mean == pytest.approx(1, abs=0.01)
    assert result.energy_by.parked > 0


def test_another_gpu_is_used_where_memory_or_requests_are_full():
    shapes = ("qwen-14b",) * 4
    workload = workload_of(random_rows(4, 0.1, 60, 1), shapes)
    result = play("dilu", workload, gpus=4)
    assert {s.gpu for s in steps_of(result)} == {0, 1}
    tight = play("dilu", workload, gpus=4, requests_max=0.01)
    assert all_ended_well(tight, workload)
    assert tight.cold_starts > 0  # nothing was admitted at the start


def test_a_quota_is_the_limit_alone_and_falls_to_the_request_beside_busy_neighbours():
    rows = [(0, 0, 100, 900), *((2000, model, 100, 300) for model in (1, 2, 3))]
    workload = workload_of(rows, FOUR)
    result = play("dilu", workload, limit_factor=8, limits_max=8)
    assert all_ended_well(result, workload)
    first = steps_of(result, "m0")
    alone = {s.sms for s in first if s.start_ms < 2000}
    crowd_ends = min(spans(result, model=f"m{i}")[-1].start_ms for i in (1, 2, 3))
    crowded = {s.sms for s in first if 2100 < s.start_ms < crowd_ends}
    after = {s.sms for s in first[-20:]}
    assert max(crowded) < min(alone)
    assert after == alone
    assert overlapping(first, steps_of(result, "m1"))


def test_steps_side_by_side_never_use_more_sms_than_there_are():
    workload = workload_of(random_rows(4, 0.8, 60, 4), FOUR)
    result = play("dilu", workload, exact=False)
    assert all_ended_well(result, workload)
    steps = steps_of(result)
    assert SMS / 2 < most_sms(steps) <= SMS
    assert len({s.sms for s in steps_of(result, "m0")}) > 1


def burst(seconds):
    """30 s of little, `seconds` of much, then little again until 150 s are over."""
    rows = [(1000.0 * i, 0, 800, 20) for i in range(150)]
    rows += [(30_000.0 + 66.0 * i, 0, 800, 20) for i in range(int(seconds * 15))]
    return workload_of(sorted(rows), FOUR[:1], duration_s=150)


def test_an_instance_is_added_for_load_that_lasts_but_not_for_a_short_burst():
    short = play("dilu", burst(10), gpus=2)
    long = play("dilu", burst(60), gpus=2)
    assert {s.gpu for s in steps_of(short)} == {0}
    assert (short.cold_starts, long.cold_starts) == (0, 1)
    (load,) = spans(long, "load")
    assert 30_000 + 20_000 < load.start_ms < 30_000 + 45_000  # more than 20 samples of the window
    assert {s.gpu for s in steps_of(long)} == {0, 1}


def test_the_added_instance_is_given_up_when_one_is_enough_again():
    awake = play("dilu", burst(60), gpus=2).timeline.gpus_awake  # by second
    assert awake[20] == pytest.approx(1)
    assert awake[85] == pytest.approx(2)
    assert awake[148] == pytest.approx(1)


def test_a_model_without_instance_starts_one_on_demand_after_its_keep_alive():
    workload = workload_of([(0, 0, 500, 5), (60_000, 0, 500, 5)], FOUR[:1], duration_s=70)
    kept = play("dilu", workload, keep_alive_s=10_000)
    stopped = play("dilu", workload, keep_alive_s=10)
    assert (kept.cold_starts, stopped.cold_starts) == (0, 1)
    assert all_ended_well(stopped, workload)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_request_is_lost_when_weights_exceed_memory(seed):
    shapes = ("llama-8b", "qwen-14b", "llama-3b", "yi-9b") * 4
    workload = workload_of(random_rows(16, 0.15, 60, seed), shapes)
    result = play("dilu", workload, gpus=2, exact=False)
    assert all_ended_well(result, workload)
    assert result.cold_starts > 0


def test_a_quarter_of_the_load_is_in_time():
    result = play("dilu", build_workload("zipf-chat", gpus=2, load=0.25), gpus=2)
    assert result.slo_attainment >= 0.95
