"""ServerlessLLM: one model owns a GPU in turn, started where it starts soonest."""

import numpy as np
import pytest
from policy_runs import all_ended_well, overlapping, play, random_rows, spans, workload_of

from festina.simulator.workloads import build_workload

TWO = ("llama-8b", "llama-3b")


def test_a_model_waits_until_the_owner_of_the_gpu_has_nothing_left():
    workload = workload_of([(0, 0, 500, 200), (100, 1, 500, 50), (150, 0, 500, 20)], TWO)
    result = play("serverlessllm", workload)
    assert all_ended_well(result, workload)
    own, other = spans(result, model="m0"), spans(result, model="m1")
    assert not overlapping(own, other)
    last_of_owner = max(s.start_ms + s.duration_ms for s in own)
    assert min(s.start_ms for s in other) >= last_of_owner - 1e-6
    assert max(s.batch for s in own) == 2  # its own later request joined it


def test_the_other_model_starts_at_once_where_a_gpu_is_idle():
    workload = workload_of([(0, 0, 500, 200), (100, 1, 500, 50)], TWO)
    result = play("serverlessllm", workload, gpus=2)
    first = spans(result, model="m1")[0]
    assert first.start_ms == pytest.approx(100)
    assert first.gpu != spans(result, model="m0")[0].gpu


def three_on_two_gpus():
    """m1 lies on one GPU, m0 and m2 on the other; only m0 runs when m2 is wanted."""
    rows = [(0, 1, 100, 300), (2500, 0, 500, 800), (4600, 2, 500, 20)]
    return workload_of(rows, ("llama-3b", "qwen-14b", "qwen-14b"))


def test_running_inference_moves_away_if_that_starts_the_model_sooner():
    workload = three_on_two_gpus()
    stays = play("serverlessllm", workload, gpus=2, migration=0)
    moves = play("serverlessllm", workload, gpus=2)
    assert all_ended_well(moves, workload)
    home = spans(stays, model="m0")[0].gpu
    assert spans(moves, model="m2")[0].gpu == home
    assert spans(stays, model="m2")[0].gpu != home
    assert (stays.migrations, moves.migrations) == (0, 1)
    first = [spans(result, "prefill", "m2")[0].start_ms for result in (stays, moves)]
    assert first[1] < first[0]
    # It goes on at home until the other GPU has its weights: the pause is shorter than the load.
    (load,) = [s for s in spans(moves, "load") if s.model == "m0"]
    steps = spans(moves, model="m0")
    ends = np.array([s.start_ms + s.duration_ms for s in steps if s.name != "load"])
    starts = np.array([s.start_ms for s in steps if s.name != "load"])
    assert (starts[1:] - ends[:-1]).max() < 0.2 * load.duration_ms


def test_weights_in_host_memory_are_worth_a_shorter_load_than_those_on_disk():
    rows = [(0, 0, 500, 5), (30_000, 0, 500, 5)]
    workload = workload_of(rows, ("llama-8b",), duration_s=40)
    near = play("serverlessllm", workload, keep_alive_s=1)
    far = play("serverlessllm", workload, keep_alive_s=1, host_gib=0.0)
    (near_load,), (far_load,) = spans(near, "load"), spans(far, "load")
    assert far_load.duration_ms > 5 * near_load.duration_ms


def test_a_gpu_without_work_is_given_up_after_the_keep_alive():
    workload = workload_of([(0, 0, 500, 5), (60_000, 0, 500, 5)], ("llama-8b",), duration_s=70)
    kept = play("serverlessllm", workload, keep_alive_s=10_000)
    given_up = play("serverlessllm", workload, keep_alive_s=10)
    assert (kept.cold_starts, given_up.cold_starts) == (0, 1)
    assert kept.energy_by.parked == 0
    assert given_up.energy_by.parked > 0
    assert given_up.energy_j < kept.energy_j


def test_nobody_starves_beside_a_model_that_always_has_work():
    busy = [(100.0 * i, 0, 300, 60) for i in range(600)]
    workload = workload_of(sorted([*busy, (5000.0, 1, 300, 10)]), TWO)
    result = play("serverlessllm", workload, patience_ms=2000)
    assert all_ended_well(result, workload)
    first = spans(result, model="m1")[0]
    assert 7000 <= first.start_ms < 15_000


def test_no_request_is_lost_when_weights_exceed_memory_and_all_gpus_are_busy():
    shapes = ("llama-8b", "qwen-14b", "llama-3b") * 5
    workload = workload_of(random_rows(15, 0.1, 60, seed=3), shapes)
    result = play("serverlessllm", workload, gpus=3, exact=False, patience_ms=5000)
    assert all_ended_well(result, workload)
    assert result.migrations > 0
    assert result.cold_starts > 0


def test_a_quarter_of_the_load_is_in_time():
    result = play("serverlessllm", build_workload("zipf-chat", gpus=2, load=0.25), gpus=2)
    assert result.slo_attainment >= 0.95
