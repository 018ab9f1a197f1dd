"""Aegaeon with a clock per GPU and iteration: the lowest that meets the objective."""

import pytest
from policy_runs import all_ended_well, play, random_rows, spans, workload_of

from festina.simulator.workloads import build_workload

SPLIT = {"prefill_gpus": 1, "decode_gpus": 1}


def test_it_does_what_aegaeon_does_at_other_clocks():
    workload = workload_of(random_rows(4, 1.0, 20, seed=1), ("llama-8b",) * 4)
    plain, slow = (play(name, workload, gpus=2) for name in ("aegaeon", "aegvoltana"))
    assert all_ended_well(slow, workload)
    assert slow.energy_j < 0.8 * plain.energy_j
    assert slow.slo_attainment == plain.slo_attainment == 1
    assert {s.clock_mhz for s in spans(plain, "decode")} == {1980}


def test_a_loose_objective_takes_the_first_clock_of_the_list():
    workload = workload_of([(0, 0, 500, 100)], ("llama-8b",))
    result = play("aegvoltana", workload, gpus=2, clock_min_mhz=1155, **SPLIT)
    steps = [s for s in spans(result) if s.name != "load"]
    assert {s.clock_mhz for s in steps} == {1155}
    assert result.clock_switches == 0


def test_a_prompt_that_would_be_late_raises_the_prefill_clock_only():
    """8,000 tokens of a 14B model take longer than 600 ms at the lowest clock."""
    workload = workload_of([(0, 0, 8000, 100)], ("qwen-14b",), ttft_ms=600)
    result = play("aegvoltana", workload, gpus=2, **SPLIT)
    assert result.clock_switches >= 1
    assert result.slo_attainment == 1
    held_low = play("aegvoltana", workload_of([(0, 0, 8000, 100)], ("qwen-14b",)), gpus=2, **SPLIT)
    assert result.ttft_ms.p50 < held_low.ttft_ms.p50
    assert {s.clock_mhz for s in spans(result, "decode")} == {990}


def test_prompts_that_wait_take_the_highest_clock():
    workload = workload_of([(0, 0, 8000, 5), (10, 0, 8000, 5)], ("qwen-14b",), ttft_ms=60_000)
    first, second = spans(play("aegvoltana", workload, gpus=2, **SPLIT), "prefill")
    assert first.clock_mhz < 1980
    assert second.clock_mhz == 1980


def test_more_decodes_than_the_gap_allows_raise_the_decode_clock():
    rows = [(5.0 * i, i % 4, 2000, 400) for i in range(64)]
    workload = workload_of(rows, ("llama-8b",) * 4, tbt_ms=40)
    result = play("aegvoltana", workload, gpus=2, **SPLIT)
    clocks = [s.clock_mhz for s in spans(result, "decode")]
    assert max(clocks) > min(clocks)
    loose = workload_of(rows, ("llama-8b",) * 4, tbt_ms=500)
    relaxed = play("aegvoltana", loose, gpus=2, **SPLIT)
    assert {s.clock_mhz for s in spans(relaxed, "decode")} == {min(clocks)}


def test_no_request_is_lost_where_weights_exceed_the_memory():
    shapes = ("llama-8b", "qwen-14b", "llama-3b") * 6
    workload = workload_of(random_rows(18, 0.2, 60, seed=3), shapes)
    result = play("aegvoltana", workload, gpus=3, exact=False)
    assert all_ended_well(result, workload)


def test_a_quarter_of_the_load_is_in_time_with_less_energy():
    workload = build_workload("zipf-chat", gpus=8, load=0.25)
    plain, slow = (play(name, workload, gpus=8, exact=False) for name in ("aegaeon", "aegvoltana"))
    assert slow.slo_attainment >= 0.95
    assert slow.energy_j < 0.85 * plain.energy_j
    assert slow.energy_j == pytest.approx(sum(vars_of(slow.energy_by)), rel=1e-6)


def vars_of(energy_by):
    return [getattr(energy_by, name) for name in energy_by.__slots__]
