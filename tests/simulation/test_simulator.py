"""The simulator's core under our policy: it adds up, loses nothing, and follows physics."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.policy_runs import (
    EXACT,
    all_ended_well,
    native_found,
    play,
    random_rows,
    spans,
    workload_of,
)

from festina.device import physics
from festina.errors import BadRequestError
from festina.simulator.policies import POLICIES, SWITCHES
from festina.simulator.run import ClusterSettings, simulate
from festina.simulator.tables import draw_bias, truth_table
from festina.types import Phase

H100 = physics.gpu_named("h100")
SHAPES = ("llama-3b", "llama-8b", "qwen-14b")
UNPACED = {"pace": 0, "clocks": 0, "parking": 0}
"""Work runs at once and at the top clock: what it takes can be told by hand."""

DIGESTS = """
from festina.simulator.run import ClusterSettings, simulate
from festina.simulator.workloads import build_workload
workload = build_workload("steady-poisson", gpus=1, load=0.1)
for seed in (101, 102):
    print(simulate(workload, ClusterSettings(gpus=1, seed=seed), "festina").digest)
"""


def test_the_seed_alone_decides_the_digest():
    processes = [
        subprocess.Popen([sys.executable, "-P", "-c", DIGESTS], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    first, second = (process.communicate()[0].split() for process in processes)
    assert len(first) == 2
    assert first == second
    assert first[0] != first[1]


def closed_loop(workload, seed):
    """Half of the requests follow an earlier one, after a pause of up to 5 s."""
    rng = np.random.default_rng(seed)
    follows = np.array(
        [rng.integers(i) if i and rng.random() < 0.5 else -1 for i in range(len(workload))]
    )
    pause_ms = rng.uniform(0, 5000, len(workload))
    return dataclasses.replace(
        workload,
        follows=follows.astype(np.int32),
        arrival_ms=np.where(follows >= 0, pause_ms, workload.arrival_ms),
    )


def test_energy_adds_up():
    workload = workload_of(random_rows(3, 0.7, 60.0, seed=1), SHAPES)
    result, found = native_found(workload, ClusterSettings(gpus=2), "festina")
    assert result.energy_by.total == pytest.approx(result.energy_j, rel=1e-12)
    of_requests, without_step = found["requests"]["energy_j"].sum(), found["overhead_j"].sum()
    assert of_requests > 0.1 * result.energy_j
    assert of_requests + without_step == pytest.approx(result.energy_j, rel=1e-6)
    assert sum(model.energy_j for model in result.per_model) == pytest.approx(result.energy_j)
    assert found["timeline"]["energy_j"].sum() == pytest.approx(result.energy_j, rel=1e-6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    gpus=st.integers(1, 3),
    models=st.integers(1, 6),
    per_s=st.sampled_from((0.1, 0.5, 2.0)),
    loop=st.booleans(),
    off=st.sets(st.sampled_from(SWITCHES["festina"])),
)
def test_nothing_is_lost(seed, gpus, models, per_s, loop, off):
    rows = random_rows(models, per_s, 20.0, seed) or [(0.0, 0, 16, 1)]
    workload = workload_of(rows, [SHAPES[i % 3] for i in range(models)], duration_s=20.0)
    if loop:
        workload = closed_loop(workload, seed)
    cluster = ClusterSettings(gpus=gpus, seed=seed)
    result, found = native_found(workload, cluster, "festina", dict.fromkeys(off, 0.0))
    assert (result.completed, result.failed, result.rejected) == (len(workload), 0, 0)
    assert result.output_tokens == workload.output_tokens.sum()
    joules = found["requests"]["energy_j"].sum() + found["overhead_j"].sum()
    assert joules == pytest.approx(result.energy_j, rel=1e-6)


def test_followers_are_sent_after_their_predecessor():
    workload = closed_loop(workload_of(random_rows(2, 1.0, 30.0, seed=3), SHAPES[:2]), seed=3)
    result, found = native_found(workload, ClusterSettings(gpus=1), "festina")
    assert result.completed == len(workload)
    requests, after = found["requests"], workload.follows
    followers = after >= 0
    ended_ms = requests["last_ms"][after[followers]]
    assert followers.sum() > 10
    assert requests["sent_ms"][followers] == pytest.approx(
        ended_ms + workload.arrival_ms[followers], rel=1e-12
    )


def physical(make_work, *amounts):
    """Latency (ms) and power with idle (W) at the top clock on all SMs, straight from physics."""
    work = make_work(physics.model_named("llama-8b"), *amounts)
    clock, sms = H100.clocks_mhz[-1], H100.sms_ladder[-1]
    point = physics.run(H100, work, sms, clock)
    return float(point.latency_ms), float(point.dynamic_w + physics.idle_w(H100, clock))


def test_one_request_follows_physics():
    prompt, outputs = 768, 200
    workload = workload_of([(1000.0, 0, prompt, outputs)], ("llama-8b",), duration_s=10.0)
    cluster = ClusterSettings(gpus=1, truth=EXACT)
    result, found = native_found(workload, cluster, "festina", UNPACED)
    first_ms, prefill_w = physical(physics.prefill_work, prompt)
    steps = [physical(physics.decode_work, 1, prompt + i) for i in range(outputs - 1)]
    requests = {name: column[0] for name, column in found["requests"].items()}
    assert requests["first_ms"] - requests["sent_ms"] == pytest.approx(first_ms, rel=1e-5)
    # Decodes lie between knots of the table: within its error of physics, exactly as it says.
    decode_ms = requests["last_ms"] - requests["first_ms"]
    assert decode_ms == pytest.approx(sum(ms for ms, _ in steps), rel=0.02)
    table = truth_table(H100, ("llama-8b",))
    rung, clock = len(H100.sms_ladder) - 1, len(H100.clocks_mhz) - 1
    contexts = np.arange(prompt, prompt + outputs - 1, dtype=np.float32)
    told = table.estimate(0, int(Phase.DECODE), rung, clock, 1, contexts)
    assert decode_ms == pytest.approx(told["latency_ms"].sum(dtype=float), rel=1e-6)
    joules = (first_ms * prefill_w + sum(ms * watts for ms, watts in steps)) / 1e3
    assert requests["energy_j"] == pytest.approx(joules, rel=0.02)
    assert result.energy_by.active == pytest.approx(requests["energy_j"], rel=1e-9)
    idle_s = result.simulated_s - (first_ms + decode_ms) / 1e3
    idle_w = float(physics.idle_w(H100, H100.clocks_mhz[-1]))
    assert result.energy_by.idle == pytest.approx(idle_s * idle_w, rel=1e-5)


def test_online_correction_keeps_objectives_that_the_profile_would_miss(monkeypatch):
    def slow(count, rng, truth):
        bias = draw_bias(count, rng, truth)
        return dataclasses.replace(bias, time=np.full((count, 2), 1.5))

    monkeypatch.setattr("festina.simulator.run.draw_bias", slow)
    workload = workload_of(random_rows(2, 1.0, 120.0, seed=4), SHAPES[:2], duration_s=120.0)
    corrected = play("festina", workload, exact=False)
    trusting = play("festina", workload, exact=False, online_correction=0)
    assert corrected.slo_attainment >= 0.95
    assert trusting.slo_attainment < corrected.slo_attainment - 0.05


def mean_batch(result):
    steps = [span for span in result.window if span.name == "decode"]
    return sum(span.batch for span in steps) / len(steps)


def test_pacing_saves_energy_by_larger_batches():
    workload = workload_of(random_rows(3, 0.5, 60.0, seed=5), SHAPES)
    paced, eager = play("festina", workload, clocks=0), play("festina", workload, clocks=0, pace=0)
    assert mean_batch(paced) > 2 * mean_batch(eager)
    assert paced.energy_by.active < 0.6 * eager.energy_by.active
    assert paced.energy_j < 0.95 * eager.energy_j
    assert min(paced.slo_attainment, eager.slo_attainment) >= 0.99


def test_pacing_still_saves_energy_where_clocks_fall():
    workload = workload_of(random_rows(3, 0.5, 60.0, seed=5), SHAPES)
    paced, eager = play("festina", workload), play("festina", workload, pace=0)
    assert mean_batch(paced) > 1.1 * mean_batch(eager)
    assert paced.energy_by.active < 0.9 * eager.energy_by.active
    assert min(paced.slo_attainment, eager.slo_attainment) >= 0.99


def test_clocks_rise_under_load_and_fall_back():
    calm = [(float(at), 0, 100, 50) for at in range(0, 120_000, 4000)]
    burst = [(40_000.0 + 50 * i, 0, 1500, 100) for i in range(400)]
    workload = workload_of(sorted(calm + burst), ("llama-8b",), duration_s=120.0, ttft_ms=500.0)
    clock = np.array(play("festina", workload, parking=0).timeline.clock_mhz)
    before, within, after = clock[10:40].mean(), clock[42:60].mean(), clock[80:120].mean()
    assert within > 1.3 * before
    assert after < 1.1 * before


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5])
def test_all_of_the_time_cannot_be_planned_for(share):
    workload = workload_of([(0.0, 0, 16, 1)], ("llama-3b",))
    with pytest.raises(BadRequestError) as caught:
        play("festina", workload, utilisation=share)
    assert caught.value.field == "options.utilisation"


def test_a_model_that_fits_no_gpu_is_named():
    small = dataclasses.replace(H100, memory_bytes=8 * 2**30)
    workload = workload_of([(0.0, 0, 16, 1), (1.0, 1, 16, 1)], ("llama-3b", "qwen-14b"))
    with pytest.raises(BadRequestError, match=r"m1 \(qwen-14b\) fits no"):
        simulate(workload, ClusterSettings(gpus=1, gpu=small), "festina")


@pytest.mark.parametrize(
    ("policy", "options", "field"),
    [("festina", {"pase": 1.0}, "options.pase"), ("fastina", {}, "policy")],
)
def test_unknown_names_are_refused(policy, options, field):
    workload = workload_of([(0.0, 0, 16, 1)], ("llama-3b",))
    with pytest.raises(BadRequestError) as caught:
        simulate(workload, ClusterSettings(gpus=1), policy, options)
    assert caught.value.field == field


def test_an_interrupted_run_says_what_it_has():
    workload = workload_of(random_rows(2, 1.0, 60.0, seed=6), SHAPES[:2])
    shares = []

    def until_half(share):
        shares.append(share)
        return share < 0.5

    result = simulate(workload, ClusterSettings(gpus=1), "festina", progress=until_half)
    assert result.interrupted
    assert shares == sorted(shares)
    assert 0.1 * len(workload) < result.completed < 0.6 * len(workload)
    sent = int((workload.arrival_ms <= result.simulated_s * 1e3).sum())
    assert result.completed + result.failed + result.rejected == sent
    assert sum(model.requests for model in result.per_model) == sent
    assert 29 < result.simulated_s < 32
    assert result.energy_by.total == pytest.approx(result.energy_j)


def test_a_run_to_the_end_is_not_interrupted():
    workload = workload_of([(0.0, 0, 16, 1)], ("llama-3b",), duration_s=5.0)
    result = simulate(workload, ClusterSettings(gpus=1), "festina", progress=lambda share: True)
    assert not result.interrupted


def test_what_an_interrupted_run_never_sent_is_neither_failed_nor_missed():
    workload = workload_of([(i * 1000, 0, 100, 5) for i in range(50)], ("llama-3b",))
    result = simulate(
        workload, ClusterSettings(gpus=1), "festina", progress=lambda share: share < 0.5
    )
    assert result.interrupted
    assert 0 < result.completed + result.failed < len(workload)
    assert result.failed <= 1
    assert result.slo_attainment > 0.9


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_computes_a_prefix_that_is_cached(policy):
    plain = workload_of([(0, 0, 3000, 4)], ("llama-8b",))
    workload = dataclasses.replace(plain, cached_tokens=np.array([2000], np.int32))
    result = play(policy, workload, gpus=2)
    assert all_ended_well(result, workload)
    assert sum(span.tokens for span in spans(result, "prefill")) == 1000


@pytest.mark.parametrize(
    ("policy", "option"),
    [
        ("festina", "chunk_tokens"),
        ("festina-paper", "epoch_ms"),
        ("serverlessllm", "target"),
        ("muxserve", "prefill_tokens"),
        ("dilu", "window"),
        ("aegaeon", "group_max"),
    ],
)
def test_numbers_with_which_a_policy_would_never_end_are_refused(policy, option):
    workload = workload_of([(0, 0, 100, 5)], ("llama-3b",))
    with pytest.raises(BadRequestError) as caught:
        play(policy, workload, gpus=2, **{option: 0})
    assert caught.value.field == f"options.{option}"
