"""The oracle's parts: prices under every step, chains of intervals, and shares that may fail."""

from dataclasses import dataclass

import numpy as np
import pytest

from festina.device import physics
from festina.errors import BadRequestError
from festina.simulator.oracle import lower_bound
from festina.simulator.oracle.chain import heaviest_chain
from festina.simulator.oracle.costs import prices
from festina.simulator.oracle.demand import Intervals, intervals, token_energy_j
from festina.simulator.oracle.dropping import capped_weights, feasible
from festina.simulator.tables import Bias, draw_bias, truth_table
from festina.simulator.workload import Deployment, Workload
from festina.types import Phase

SHAPES = ["llama-3b", "qwen-14b"]
H100 = physics.gpu_named("h100")


@dataclass(frozen=True)
class Cluster:
    gpus: int = 2
    gpu: physics.GpuSpec = H100


def workload(seed=0, n=60, seconds=60.0, outputs=120, ttft_ms=400.0, tbt_ms=100.0):
    rng = np.random.default_rng(seed)
    return Workload(
        name="test",
        deployments=tuple(Deployment(f"m{i}", shape) for i, shape in enumerate(SHAPES)),
        duration_s=seconds,
        synthetic=True,
        arrival_ms=np.sort(rng.uniform(0.0, seconds * 1e3, n)),
        model=rng.integers(0, len(SHAPES), n).astype(np.int32),
        input_tokens=rng.integers(10, 2000, n).astype(np.int32),
        cached_tokens=np.zeros(n, np.int32),
        output_tokens=rng.integers(1, outputs, n).astype(np.int32),
        follows=np.full(n, -1, np.int32),
        ttft_ms=np.full(n, ttft_ms, np.float32),
        tbt_ms=np.full(n, tbt_ms, np.float32),
    )


def step_j(table, shape, bias, decodes, context, tokens, cached, rung, clock):
    """Dynamic energy and seconds of a step as `price` of csrc/core/simulator/pricing.hpp has it."""
    index = table.index(shape)

    def step(phase, work0, work1):
        found = table.estimate(index, int(phase), rung, clock, work0, work1)
        seconds = found["latency_ms"].astype(np.float64) / 1e3
        return seconds * found["power_w"], seconds

    phase = np.where(tokens > 0, Phase.PREFILL, Phase.DECODE)
    prompt_j, prompt_s = step(Phase.PREFILL, tokens + decodes, cached)
    decode_j, decode_s = step(Phase.DECODE, decodes, context)
    bare_j, bare_s = step(Phase.DECODE, decodes, 0 * context)
    reads = (tokens > 0) & (decodes > 0)
    energy = np.where(tokens > 0, prompt_j + reads * np.maximum(decode_j - bare_j, 0.0), decode_j)
    seconds = np.where(tokens > 0, prompt_s + reads * np.maximum(decode_s - bare_s, 0.0), decode_s)
    return energy * bias.time[0, phase] * bias.power[0, phase], seconds * bias.time[0, phase]


@pytest.mark.parametrize("kind", ["h100", "a100"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("drawn", [False, True])
def test_no_step_costs_less_than_its_pass_and_its_tokens(kind, shape, drawn):
    gpu, rng, n = physics.gpu_named(kind), np.random.default_rng(5), 100_000
    table = truth_table(gpu, [shape])
    bias = draw_bias(1, rng) if drawn else Bias.none(1)
    (price,) = prices(gpu, table, [shape], bias)
    pick = rng.integers(0, 3, n)  # decodes only, prompts only, or both
    decodes = np.where(pick == 1, 0, np.exp2(rng.uniform(0, 8, n)).astype(int))
    tokens = np.where(pick == 0, 0, np.exp2(rng.uniform(0, 14, n)).astype(int))
    context, cached = np.exp2(rng.uniform(0, 14, n)), np.exp2(rng.uniform(0, 14, n))
    rung, clock = (rng.integers(0, len(axis), n) for axis in (table.sms, table.clocks_mhz))
    energy, seconds = step_j(table, shape, bias, decodes, context, tokens, cached, rung, clock)
    static_w = (physics.idle_w(gpu, gpu.clocks_mhz) - physics.parked_w(gpu))[clock]
    pairs = tokens * cached + tokens**2 / 2
    least = (
        price.pass_j
        + price.prompt_token_j * tokens
        + price.pair_j * pairs
        + decodes * (price.decode_token_j + price.context_token_j * context)
    )
    ratio = (energy + static_w * seconds) / least
    assert ratio.min() >= 1.0
    assert ratio[(clock == 0)].min() < 1.1  # and the line is close under them


def random_intervals(seed, n=40):
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 60, n).astype(float)
    return Intervals(
        request=np.arange(n),
        start_ms=start,
        end_ms=start + rng.integers(1, 20, n),
        passes=rng.integers(1, 6, n).astype(float),
    )


def fewest_passes(demand):
    """As late as possible, one interval after the other by its end: optimal on a line."""
    passes: list[float] = []
    for i in np.argsort(demand.end_ms, kind="stable"):
        inside = sum(time > demand.start_ms[i] for time in passes)
        passes += [demand.end_ms[i]] * max(0, int(demand.passes[i]) - inside)
    return len(passes)


@pytest.mark.parametrize("seed", range(30))
def test_the_heaviest_chain_asks_for_as_many_passes_as_are_needed(seed):
    demand = random_intervals(seed)
    chain = heaviest_chain(demand)
    assert np.array_equal(feasible(demand, chain), chain)
    assert chain @ demand.passes == fewest_passes(demand)


@pytest.mark.parametrize("seed", range(10))
def test_weights_under_a_limit_cover_no_moment_twice_and_respect_it(seed):
    demand, limit_j, pass_j = random_intervals(seed), 6.0, 2.0
    own_j = np.full(len(demand), 1.0)
    weights, too_dear = capped_weights(demand, pass_j, own_j, limit_j)
    assert np.array_equal(feasible(demand, weights), weights)
    assert np.all(own_j + weights * demand.passes * pass_j <= limit_j + 1e-6)
    unlimited, none = capped_weights(demand, pass_j, own_j, 1e6)
    assert unlimited @ demand.passes == pytest.approx(fewest_passes(demand))
    assert 0.0 < weights @ demand.passes < unlimited @ demand.passes
    assert too_dear > 1.0
    assert none == pytest.approx(0.0, abs=1e-6)


def test_weights_that_cover_a_moment_twice_are_lowered():
    demand = Intervals(
        np.arange(3), np.array([0.0, 5.0, 10.0]), np.array([10.0, 15.0, 20.0]), np.ones(3)
    )
    assert feasible(demand, np.ones(3)) == pytest.approx([0.5, 0.5, 0.5])
    assert feasible(demand, np.array([1.0, 0.0, 1.0])) == pytest.approx([1.0, 0.0, 1.0])


def test_intervals_end_when_the_tokens_are_due_and_late_by_what_is_excused():
    work = workload(n=1)
    work.output_tokens[:] = 301  # 300 gaps, three of them excused
    demand = intervals(work, np.array([0]), 3, stall_ms=1000.0)
    due = work.arrival_ms[0] + 400.0 + np.array([0, 100, 200, 300]) * 100.0
    assert demand.passes.tolist() == [1, 101, 201, 301]
    assert demand.end_ms == pytest.approx(due + np.array([0, 3, 3, 3]) * 900.0)
    assert np.all(demand.start_ms == work.arrival_ms[0])


def test_a_request_of_one_token_needs_one_pass():
    work = workload(n=1)
    work.output_tokens[:] = 1
    demand = intervals(work, np.array([0]), 8, stall_ms=1000.0)
    assert demand.passes.tolist() == [1]


def test_parts_add_up_and_parked_gpus_are_a_floor():
    bound = lower_bound(workload(), Cluster())
    parts = bound.parts
    assert bound.energy_j == pytest.approx(
        parts.dynamic + parts.awake + parts.parked + parts.loading
    )
    assert parts.parked == pytest.approx(2 * workload().metered_s * physics.parked_w(H100))
    assert min(parts.dynamic, parts.awake) > 0.0


def test_the_more_may_fail_the_lower_the_bound_down_to_parked_gpus():
    bounds = [lower_bound(workload(), Cluster(), share) for share in (1.0, 0.99, 0.95, 0.5, 0.0)]
    energy = [bound.energy_j for bound in bounds]
    assert energy[0] == energy[1]  # 1 % of 60 requests is none
    assert np.all(np.diff(energy[1:]) < 0.0)
    assert energy[-1] == pytest.approx(bounds[0].parts.parked)


def test_shares_that_may_fail_are_priced_better_than_by_the_chain_alone():
    work = workload(n=400, seconds=100.0)
    price = prices(H100, truth_table(H100, SHAPES), SHAPES, Bias.none(len(SHAPES)))
    request_j = token_energy_j(work, price)
    for model in range(len(SHAPES)):
        demand = intervals(work, np.flatnonzero(work.model == model), 64, 1000.0)
        share = heaviest_chain(demand) * demand.passes
        np.add.at(request_j, demand.request, share * price[model].pass_j)
    by_chain_j = np.sort(request_j)[:-20].sum()
    bound = lower_bound(work, Cluster(), 0.95)
    assert bound.parts.dynamic + bound.parts.awake > 1.05 * by_chain_j


def test_looser_objectives_and_fewer_requests_need_less():
    strict = lower_bound(workload(), Cluster()).energy_j
    assert lower_bound(workload(tbt_ms=250.0), Cluster()).energy_j < strict
    assert lower_bound(workload(), Cluster(), stall_ms=20_000.0).energy_j < strict
    assert lower_bound(workload(n=40), Cluster()).energy_j < strict


def test_bias_of_the_truth_scales_what_steps_cost():
    plain = lower_bound(workload(), Cluster()).parts
    dear = Bias(time=np.full((2, 2), 1.25), power=np.full((2, 2), 1.2))
    biased = lower_bound(workload(), Cluster(), bias=dear).parts
    assert biased.dynamic == pytest.approx(1.5 * plain.dynamic, rel=0.01)
    assert biased.parked == plain.parked


def test_followers_cost_their_tokens_only_as_nobody_knows_when_they_come():
    work = workload(n=2)
    work.model[:] = 0
    alone = lower_bound(work, Cluster()).parts
    work.follows[1] = 0
    following = lower_bound(work, Cluster()).parts
    assert 0.0 < following.dynamic < alone.dynamic


def test_an_empty_workload_keeps_its_gpus_parked():
    bound = lower_bound(workload(n=0), Cluster(), 0.9)
    assert bound.energy_j == bound.parts.parked


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_out_of_range_are_typed_errors(share):
    with pytest.raises(BadRequestError, match="attainment"):
        lower_bound(workload(), Cluster(), share)
    with pytest.raises(BadRequestError, match="stall_ms"):
        lower_bound(workload(), Cluster(), stall_ms=-1.0)


def test_the_same_workload_has_the_same_bound():
    assert lower_bound(workload(), Cluster(), 0.9) == lower_bound(workload(), Cluster(), 0.9)
