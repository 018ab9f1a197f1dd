"""Aegaeon: prefill and decode on separate GPUs, batches that take turns token by token."""

import numpy as np
import pytest
from policy_runs import all_ended_well, play, random_rows, spans, workload_of

from festina.errors import BadRequestError
from festina.simulator.workloads import build_workload

SPLIT = {"prefill_gpus": 1, "decode_gpus": 1}


def test_prefill_and_decode_run_on_separate_gpus():
    workload = workload_of(random_rows(3, 1.0, 20, seed=1), ("llama-8b",) * 3)
    result = play("aegaeon", workload, gpus=4, prefill_gpus=2, decode_gpus=2)
    assert all_ended_well(result, workload)
    assert {span.gpu for span in spans(result, "prefill")} == {0, 1}
    assert {span.gpu for span in spans(result, "decode")} <= {2, 3}


def test_a_prompt_runs_alone_and_whole_even_if_others_wait():
    workload = workload_of([(0, 0, 6000, 5), (1, 0, 700, 5), (2, 0, 300, 5)], ("llama-8b",))
    result = play("aegaeon", workload, gpus=2, **SPLIT)
    assert [(s.tokens, s.batch) for s in spans(result, "prefill")] == [
        (6000, 0),
        (700, 0),
        (300, 0),
    ]


def test_prompts_of_a_model_run_as_a_group_up_to_its_size():
    """m1 came second, but m0's group of two goes first; its third prompt is a group of its own."""
    rows = [(0, 0, 4000, 2), (1, 1, 400, 2), (2, 0, 400, 2), (3, 0, 400, 2)]
    workload = workload_of(rows, ("llama-8b", "llama-8b"))
    grouped = play("aegaeon", workload, gpus=2, group_max=2, **SPLIT)
    assert [s.model for s in spans(grouped, "prefill")] == ["m0", "m0", "m1", "m0"]
    alone = play("aegaeon", workload, gpus=2, group_max=1, **SPLIT)
    assert [s.model for s in spans(alone, "prefill")] == ["m0", "m1", "m0", "m0"]


def test_resident_models_take_turns_token_by_token():
    workload = workload_of([(0, 0, 100, 60), (0, 1, 100, 60)], ("llama-8b", "llama-8b"))
    result = play("aegaeon", workload, gpus=2, **SPLIT)
    models = [s.model for s in spans(result, "decode")]
    together = models[10:100]
    assert all(a != b for a, b in zip(together[1:], together[:-1], strict=True))
    assert result.cold_starts == 0


SIX = ("qwen-14b",) * 6
"""168 GB of weights: a GPU holds two and a half of them."""


def test_batches_that_do_not_all_fit_are_preempted_once_their_quota_is_over():
    rows = [(10.0 * i, i, 50, 1500) for i in range(4)]
    workload = workload_of(rows, SIX[:4])
    result = play("aegaeon", workload, gpus=3, prefill_gpus=2, decode_gpus=1, quota_max_ms=1000)
    assert all_ended_well(result, workload)
    steps = spans(result, "decode", gpu=2)
    turns = np.flatnonzero([a.model != b.model for a, b in zip(steps[1:], steps[:-1], strict=True)])
    assert len(turns) > 8
    # A load on the decode GPU never stops it: the others go on meanwhile.
    loads = spans(result, "load", gpu=2)
    assert len(loads) > 4
    busy = [s for s in steps if loads[2].start_ms <= s.start_ms]
    during = [s for s in busy if s.start_ms < loads[2].start_ms + loads[2].duration_ms]
    assert sum(s.duration_ms for s in during) > 0.8 * loads[2].duration_ms


def test_longer_quotas_make_fewer_loads():
    workload = workload_of([(10.0 * i, i, 50, 1500) for i in range(5)], SIX[:5])
    split = {"prefill_gpus": 2, "decode_gpus": 1}
    short = play("aegaeon", workload, gpus=3, quota_max_ms=500, **split)
    long = play("aegaeon", workload, gpus=3, quota_max_ms=4000, **split)
    assert all_ended_well(short, workload)
    assert all_ended_well(long, workload)
    assert long.cold_starts < short.cold_starts


def test_weights_are_on_their_way_to_the_decode_gpu_while_the_prompt_runs():
    rows = [(0, 0, 100, 5), (1000, 1, 100, 5), (2000, 2, 100, 5), (3000, 3, 20_000, 5)]
    workload = workload_of(rows, SIX[:4])
    result = play("aegaeon", workload, gpus=3, prefill_gpus=2, decode_gpus=1)
    (prompt,) = spans(result, "prefill", "m3")
    (load,) = spans(result, "load", "m3", gpu=2)
    assert load.start_ms == pytest.approx(3000)
    assert load.start_ms < prompt.start_ms + prompt.duration_ms


def test_caches_wait_on_the_prefill_gpu_until_the_decode_gpu_has_room():
    workload = workload_of([(i, 0, 30_000, 200) for i in range(20)], ("qwen-14b",))
    result = play("aegaeon", workload, gpus=2, **SPLIT)
    assert all_ended_well(result, workload)
    assert max(s.batch for s in spans(result, "decode")) < 12


def test_gpus_that_the_declared_load_does_not_need_are_parked():
    workload = workload_of(random_rows(2, 0.2, 60, seed=2), ("llama-3b", "llama-3b"))
    result = play("aegaeon", workload, gpus=6)
    assert all_ended_well(result, workload)
    assert result.gpus_awake_mean == pytest.approx(2)
    assert result.energy_by.parked > 0


def test_no_request_is_lost_where_weights_exceed_the_memory():
    shapes = ("llama-8b", "qwen-14b", "llama-3b") * 6
    workload = workload_of(random_rows(18, 0.2, 60, seed=3), shapes)
    result = play("aegaeon", workload, gpus=3, exact=False)
    assert all_ended_well(result, workload)
    assert result.cold_starts > 0


def test_a_quarter_of_the_load_is_in_time():
    result = play("aegaeon", build_workload("zipf-chat", gpus=8, load=0.25), gpus=8, exact=False)
    assert result.slo_attainment >= 0.95


@pytest.mark.parametrize(
    ("gpus", "options", "field"),
    [(1, {}, "gpus"), (2, {"prefill_gpus": 2}, "options.prefill_gpus")],
)
def test_a_split_that_leaves_a_phase_without_gpu_is_refused(gpus, options, field):
    workload = workload_of([(0, 0, 100, 5)], ("llama-3b",))
    with pytest.raises(BadRequestError) as caught:
        play("aegaeon", workload, gpus=gpus, **options)
    assert caught.value.field == field
