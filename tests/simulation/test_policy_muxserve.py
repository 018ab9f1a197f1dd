"""MuxServe: placed once from declared loads, static SM shares, prompts and decodes side by side."""

from collections import defaultdict

import pytest
from policy_runs import all_ended_well, most_sms, overlapping, play, random_rows, spans, workload_of

from festina.simulator.workloads import build_workload

FOUR = ("llama-8b", "llama-3b", "llama-8b", "llama-3b")
SMS = 132


def busy_minute(seed=5, models=4, per_s=0.7):
    return workload_of(random_rows(models, per_s, 60, seed), FOUR[:models])


def test_sm_shares_never_change_and_fit_the_gpu():
    workload = busy_minute()
    result = play("muxserve", workload, exact=False)
    assert all_ended_well(result, workload)
    shares = defaultdict(set)
    steps = [s for s in spans(result) if s.name in ("prefill", "decode")]
    for step in steps:
        shares[step.name, step.model if step.name == "decode" else ""].add(step.sms)
    assert all(len(sms) == 1 for sms in shares.values())
    (prompts,) = shares["prefill", ""]
    assert all(prompts > 2 * next(iter(shares["decode", f"m{i}"])) for i in range(4))
    assert SMS / 2 < most_sms(steps) <= SMS


def test_prompts_run_beside_decodes_of_the_same_model_and_of_others():
    result = play("muxserve", busy_minute())
    own = overlapping(spans(result, "prefill", "m0"), spans(result, "decode", "m0"))
    others = overlapping(spans(result, "prefill", "m0"), spans(result, "decode", "m1"))
    decodes = overlapping(spans(result, "decode", "m0"), spans(result, "decode", "m1"))
    assert own
    assert others
    assert decodes
    assert not overlapping(spans(result, "prefill", "m0"), spans(result, "prefill", "m1"))


def test_a_heavier_declared_load_has_more_sms_for_its_decodes():
    light = [(1000.0 * i, 0, 200, 50) for i in range(30)]
    heavy = [(25.0 * i, 0, 200, 400) for i in range(1200)]
    shares = [
        {s.sms for s in spans(play("muxserve", workload_of(rows, FOUR[:1])), "decode")}
        for rows in (light, heavy)
    ]
    assert max(shares[0]) < min(shares[1])


def test_the_heaviest_models_live_apart_and_nobody_ever_moves():
    rows = random_rows(2, 1.5, 60, 7) + [(10_000.0 + i, 2 + i % 2, 100, 20) for i in range(30)]
    workload = workload_of(sorted(rows), FOUR)
    result = play("muxserve", workload, gpus=2)
    homes = [{s.gpu for s in spans(result, model=f"m{i}")} for i in range(4)]
    assert all(len(home) == 1 for home in homes)
    assert homes[0] != homes[1]
    assert result.migrations == 0


def test_no_decode_starts_while_a_prompt_waits_for_sms():
    long_outputs = [(0, model, 100, 400) for model in range(4)]
    workload = workload_of([*long_outputs, (2000, 0, 1500, 2)], FOUR)
    result = play("muxserve", workload)
    decodes = spans(result, "decode")
    running = sum(s.sms for s in decodes if s.start_ms <= 2000 < s.start_ms + s.duration_ms)
    (prompt,) = [s for s in spans(result, "prefill") if s.start_ms >= 2000]
    assert running + prompt.sms > SMS  # it had to wait
    assert prompt.start_ms > 2000
    assert not [s for s in decodes if 2000 < s.start_ms < prompt.start_ms]
    assert overlapping([prompt], decodes)


def test_models_take_turns_with_their_prompts():
    rows = [(0, 0, 1500, 2) for _ in range(6)] + [(1, 1, 1500, 2)]
    result = play("muxserve", workload_of(rows, FOUR[:2]))
    order = [s.model for s in spans(result, "prefill")]
    assert order[:3] == ["m0", "m1", "m0"]


def test_idle_weights_are_offloaded_and_come_back():
    rows = [(0, 0, 500, 5), (60_000, 0, 500, 5)]
    workload = workload_of(rows, FOUR[:1], duration_s=70)
    kept = play("muxserve", workload, keep_alive_s=10_000)
    offloaded = play("muxserve", workload, keep_alive_s=10)
    assert (kept.cold_starts, offloaded.cold_starts) == (0, 1)
    assert kept.energy_by.parked == 0
    assert offloaded.energy_by.parked > 0
    assert all_ended_well(offloaded, workload)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_request_is_lost_when_weights_exceed_memory(seed):
    shapes = ("llama-8b", "qwen-14b", "llama-3b", "yi-9b") * 4
    workload = workload_of(random_rows(16, 0.15, 60, seed), shapes)
    result = play("muxserve", workload, gpus=2, exact=False)
    assert all_ended_well(result, workload)
    assert result.cold_starts > 0


def test_a_quarter_of_the_load_is_in_time():
    result = play("muxserve", build_workload("zipf-chat", gpus=2, load=0.25), gpus=2)
    assert result.slo_attainment >= 0.95
