"""The bound is below the best of all schedules, found by trying them on tiny workloads."""

from dataclasses import dataclass
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest

from festina.device import physics
from festina.simulator.oracle import lower_bound
from festina.simulator.tables import Bias, truth_table
from festina.simulator.workload import Deployment, Workload
from festina.types import Phase

H100 = physics.gpu_named("h100")
SHAPE = "llama-3b"
TABLE = truth_table(H100, [SHAPE])
SLOT_MS = 30.0
SLOTS = 24
CLOCKS = (0, H100.clocks_mhz.index(990))  # cheapest when idle, and quick
FULL = len(H100.sms_ladder) - 1


@dataclass(frozen=True)
class Cluster:
    gpus: int = 1
    gpu: physics.GpuSpec = H100


def tiny(seed, n=3):
    rng = np.random.default_rng(seed)
    return Workload(
        name="tiny",
        deployments=(Deployment("m", SHAPE),),
        duration_s=SLOTS * SLOT_MS / 1e3,
        synthetic=True,
        arrival_ms=np.sort(rng.uniform(0.0, 8 * SLOT_MS, n)),
        model=np.zeros(n, np.int32),
        input_tokens=rng.integers(20, 200, n).astype(np.int32),
        cached_tokens=np.zeros(n, np.int32),
        output_tokens=rng.integers(1, 5, n).astype(np.int32),
        follows=np.full(n, -1, np.int32),
        ttft_ms=rng.choice([70.0, 130.0, 250.0], n).astype(np.float32),
        tbt_ms=rng.choice([40.0, 70.0, 100.0], n).astype(np.float32),
    )


@cache
def run(phase, work0, work1, clock):
    """(dynamic J, ms) of a step on all SMs."""
    found = TABLE.estimate(0, int(phase), FULL, clock, float(work0), float(work1))[0]
    latency_ms = float(found["latency_ms"])
    return latency_ms * float(found["power_w"]) / 1e3, latency_ms


@cache
def step(contexts, prompts, clock):
    """(J above a parked GPU, ms) of a step over decodes and whole prompts."""
    decodes, mean = len(contexts), sum(contexts) / max(1, len(contexts))
    if prompts:
        energy_j, latency_ms = run(Phase.PREFILL, sum(prompts) + decodes, 0, clock)
        if decodes:
            read_j, read_ms = run(Phase.DECODE, decodes, mean, clock)
            bare_j, bare_ms = run(Phase.DECODE, decodes, 0, clock)
            energy_j += max(0.0, read_j - bare_j)
            latency_ms += max(0.0, read_ms - bare_ms)
    else:
        energy_j, latency_ms = run(Phase.DECODE, decodes, mean, clock)
    static_w = float(physics.idle_w(H100, H100.clocks_mhz[clock])) - physics.parked_w(H100)
    return energy_j + static_w * latency_ms / 1e3, latency_ms


def best_j(work, served):
    """Least energy above parked GPUs to serve these requests in time, over all schedules that start
    at most one step at the beginning of each slot; infinite where none is in time."""

    @cache
    def least(slot, state):
        # Of each request: (tokens out, when the next one is due).
        now_ms = slot * SLOT_MS
        open_ = [i for i in served if state[i][0] < work.output_tokens[i]]
        if not open_:
            return 0.0
        if slot == SLOTS or any(state[i][1] < now_ms for i in open_):
            return np.inf
        here = [i for i in open_ if work.arrival_ms[i] <= now_ms]
        best = least(slot + 1, state)
        for size in range(1, len(here) + 1):
            for chosen, clock in product(combinations(here, size), CLOCKS):
                contexts = tuple(
                    int(work.input_tokens[i]) + state[i][0] - 1 for i in chosen if state[i][0]
                )
                prompts = tuple(int(work.input_tokens[i]) for i in chosen if not state[i][0])
                energy_j, latency_ms = step(contexts, prompts, clock)
                ends_ms = now_ms + latency_ms
                if latency_ms > SLOT_MS or any(state[i][1] < ends_ms for i in chosen):
                    continue
                after = list(state)
                for i in chosen:
                    after[i] = (state[i][0] + 1, ends_ms + float(work.tbt_ms[i]))
                best = min(best, energy_j + least(slot + 1, tuple(after)))
        return best

    due_ms = (work.arrival_ms + work.ttft_ms).tolist()
    return least(0, tuple((0, due) for due in due_ms))


@pytest.mark.parametrize("seed", range(12))
def test_no_schedule_beats_the_bound_and_the_bound_is_close(seed):
    work = tiny(seed)
    optimum_j = best_j(work, range(len(work)))
    assert np.isfinite(optimum_j)
    bound = lower_bound(work, Cluster())
    above_parked_j = bound.parts.dynamic + bound.parts.awake
    assert 0.6 * optimum_j < above_parked_j <= optimum_j


@pytest.mark.parametrize("seed", range(6))
def test_no_schedule_that_may_fail_one_request_beats_the_bound(seed):
    work = tiny(seed, n=4)
    optimum_j = min(best_j(work, served) for served in combinations(range(4), 3))
    assert np.isfinite(optimum_j)
    bound = lower_bound(work, Cluster(), 0.75)
    above_parked_j = bound.parts.dynamic + bound.parts.awake
    assert 0.4 * optimum_j < above_parked_j <= optimum_j


def test_the_bound_follows_a_truth_that_differs_from_the_profile():
    work = tiny(1)
    bias = Bias(time=np.full((1, 2), 0.9), power=np.full((1, 2), 0.8))
    optimum_j = 0.72 * best_j(work, range(len(work)))  # of its dynamic part, which is nearly all
    bound = lower_bound(work, Cluster(), bias=bias)
    assert bound.parts.dynamic < optimum_j
    assert bound.parts.dynamic == pytest.approx(
        0.72 * lower_bound(work, Cluster()).parts.dynamic, rel=0.02
    )
