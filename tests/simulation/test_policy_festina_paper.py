"""Festina as published, on simulated GPUs: what it decides, and that it loses nothing."""

import dataclasses

import numpy as np
import pytest

from festina.errors import BadRequestError
from festina.simulator.run import ClusterSettings, simulate
from festina.simulator.workload import Deployment, Workload

OFF = {"operating_point": 0.0, "local_priority": 0.0, "consolidation": 0.0}


def workload(
    arrivals_s,
    models,
    *,
    shapes=("llama-8b",),
    inputs=300,
    outputs=60,
    ttft_ms=400.0,
    tbt_ms=100.0,
    duration_s=60.0,
):
    count = len(arrivals_s)
    full = lambda value, kind: np.full(count, value, kind)  # noqa: E731
    return Workload(
        name="made",
        deployments=tuple(
            Deployment(f"m{index}-{shape}", shape) for index, shape in enumerate(shapes)
        ),
        duration_s=duration_s,
        synthetic=True,
        arrival_ms=np.asarray(arrivals_s, np.float64) * 1e3,
        model=np.asarray(models, np.int32),
        input_tokens=np.broadcast_to(np.asarray(inputs, np.int32), (count,)).copy(),
        cached_tokens=full(0, np.int32),
        output_tokens=full(outputs, np.int32),
        follows=full(-1, np.int32),
        ttft_ms=np.broadcast_to(np.asarray(ttft_ms, np.float32), (count,)).copy(),
        tbt_ms=full(tbt_ms, np.float32),
    )


def poisson(per_s, duration_s, models, seed=5, **changes):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1 / per_s, int(per_s * duration_s)))
    return workload(
        times,
        rng.integers(0, models, len(times)),
        shapes=tuple(("llama-3b", "llama-8b", "qwen-14b")[index % 3] for index in range(models)),
        inputs=rng.integers(20, 900, len(times)),
        duration_s=duration_s,
        **changes,
    )


def run(work, options=None, gpus=2, **changes):
    return simulate(work, ClusterSettings(gpus=gpus), "festina-paper", options, **changes)


LADDER = (
    OFF,
    {**OFF, "operating_point": 1.0},
    {"consolidation": 0.0},
    {},
)


@pytest.mark.parametrize("options", LADDER)
def test_every_request_ends_on_each_rung_of_the_ladder(options):
    work = poisson(6.0, 60.0, 6)
    result = run(work, options)
    assert result.completed == len(work)
    assert result.failed == result.rejected == 0


def test_moderate_load_is_served_in_time():
    assert run(poisson(3.0, 120.0, 6)).slo_attainment >= 0.97


def test_least_energy_clocks_and_partitions_save_energy():
    work = poisson(3.0, 120.0, 6)
    base, full = run(work, OFF), run(work)
    assert full.energy_j < 0.8 * base.energy_j


def test_without_an_operating_point_the_clock_never_changes():
    result = run(poisson(3.0, 60.0, 4), OFF)
    assert result.clock_switches == 0
    assert result.timeline.clock_mhz == pytest.approx([1980.0] * len(result.timeline.clock_mhz))


def test_steps_of_models_run_side_by_side_on_the_fewest_sms_that_are_in_time():
    work = workload([1.0, 1.0, 1.0], [0, 1, 2], shapes=("llama-8b",) * 3, outputs=300)
    result = run(work, gpus=1, trace_window_s=(3.0, 5.0))
    spans = [span for span in result.window if span.name == "decode"]
    overlapping = sum(
        a.model != b.model and a.start_ms < b.start_ms < a.start_ms + a.duration_ms
        for a in spans
        for b in spans
    )
    assert overlapping > len(spans) / 2
    # One step on the whole GPU takes 11 ms; on the fewest SMs it takes what its objective allows
    # or, where that is more than the smallest partition needs, what that needs.
    assert all(15 < span.duration_ms < 100 for span in spans)


def test_long_prompts_leave_decodes_in_time():
    work = workload(
        [1.0, 2.0, 2.1],
        [0, 0, 0],
        inputs=[200, 8000, 8000],
        outputs=120,
        ttft_ms=[400.0, 2000.0, 2000.0],
    )
    result = run(work, gpus=1)
    assert result.slo_attainment == 1.0


def test_urgent_prompts_overtake_where_priority_is_on():
    # Long prompts with time in hand, and then a short one in a hurry, of one model.
    work = workload(
        [1.0] * 6 + [1.01],
        [0] * 7,
        inputs=[8000] * 6 + [100],
        outputs=10,
        ttft_ms=[6000.0] * 6 + [300.0],
    )
    by_arrival = run(work, {"local_priority": 0.0}, gpus=1)
    by_score = run(work, gpus=1)
    assert by_score.ttft_attainment == 1.0
    assert by_arrival.ttft_attainment < 1.0


def test_a_model_that_no_gpu_holds_is_loaded():
    shapes = ("qwen-14b",) * 5  # four fit beside their caches
    work = workload(np.arange(1.0, 11.0), np.arange(10) % 5, shapes=shapes)
    result = run(work, gpus=1)
    assert result.cold_starts >= 1
    assert result.completed == len(work)


def test_a_hot_model_gets_a_second_gpu():
    work = workload(np.linspace(1.0, 30.0, 900), [0] * 900, inputs=1000, outputs=200)
    result = run(work, gpus=2)
    assert result.cold_starts >= 1
    assert result.completed == len(work)


def test_caches_that_outgrow_memory_cost_evictions_and_no_request():
    # Outputs are far longer than the mean of what has finished says.
    work = workload(
        np.linspace(1.0, 5.0, 300), [0] * 300, shapes=("qwen-14b",), inputs=600, outputs=1200
    )
    result = run(work, gpus=1)
    assert result.completed == len(work)


def sparse(duration_s, models, every_s, **changes):
    """One request every `every_s`, the models in turn."""
    times = np.arange(1.0, duration_s, every_s)
    return workload(
        times,
        np.arange(len(times)) % models,
        shapes=("llama-8b",) * models,
        duration_s=duration_s,
        **changes,
    )


def test_gpus_that_are_not_needed_are_parked():
    # Four models of 16 GB fit one GPU; three of them fall silent.
    work = sparse(900.0, 4, 5.0)
    silent = (work.model > 0) & (work.arrival_ms > 200e3)
    keep = np.flatnonzero(~silent)
    columns = ("arrival_ms", "model", "input_tokens", "cached_tokens", "output_tokens", "follows")
    taken = {name: getattr(work, name)[keep] for name in (*columns, "ttft_ms", "tbt_ms")}
    quiet = dataclasses.replace(work, **taken)
    on, off = run(quiet, gpus=4), run(quiet, {"consolidation": 0.0}, gpus=4)
    assert off.gpus_awake_mean == pytest.approx(4.0)
    assert off.energy_by.parked == 0
    assert on.timeline.gpus_awake[0] == pytest.approx(4.0)
    assert on.timeline.gpus_awake[-1] == pytest.approx(1.0)
    assert on.completed == off.completed == len(quiet)
    assert on.energy_j < off.energy_j


def test_requests_in_flight_move_with_their_model():
    # Two busy models on two GPUs would fit one; a third, then idle, lets the check happen.
    times = np.arange(1.0, 600.0, 1.0)
    models = np.where(times < 30, np.arange(len(times)) % 3, np.arange(len(times)) % 2)
    work = workload(times, models, shapes=("llama-8b",) * 3, outputs=600, duration_s=600.0)
    result = run(work, gpus=2)
    assert result.timeline.gpus_awake[-1] == pytest.approx(1.0)
    assert result.migrations > 0
    assert result.completed == len(work)
    # Those that moved waited for their caches once; nobody else noticed.
    assert result.slo_attainment > 0.98


def test_nothing_is_parked_before_a_whole_window_was_seen():
    result = run(sparse(290.0, 1, 10.0), gpus=3)
    awake = result.timeline.gpus_awake[: int(290 / result.timeline.interval_s)]
    assert awake == pytest.approx([3.0] * len(awake))


def test_a_parked_gpu_wakes_for_a_burst():
    calm, burst = np.arange(1.0, 700.0, 15.0), np.linspace(700.0, 730.0, 900)
    work = workload(
        np.concatenate([calm, burst]),
        [0] * (len(calm) + len(burst)),
        inputs=1000,
        outputs=100,
        duration_s=760.0,
    )
    result = run(work, {"keep_alive_s": 2.0}, gpus=2)
    awake = np.asarray(result.timeline.gpus_awake)
    at = (np.array([400.0, 550.0, 690.0, 715.0]) / result.timeline.interval_s).astype(int)
    assert awake[at] == pytest.approx([1.0, 1.0, 1.0, 2.0])
    assert result.completed == len(work)


def test_the_same_seed_gives_the_same_simulation():
    work = poisson(4.0, 30.0, 6)
    assert run(work).digest == run(work).digest


def test_unknown_options_are_refused():
    with pytest.raises(BadRequestError, match=r"options\.fast"):
        run(poisson(1.0, 5.0, 1), {"fast": 1.0})
