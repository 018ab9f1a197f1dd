"""Placement against slow, independent statements of both rules, on small clusters."""

import math
import random
from dataclasses import dataclass

import decision_samples as sample
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from festina.control.placement import ClusterView, Improvements
from festina.errors import InfeasibleError, OverloadedError
from festina.types import GpuSummary, ModelState, ModelSummary, Phase, Slo

TABLE = sample.table(scales=(1.0, 2.5))
MODELS = ("m0", "m1")
FULL = len(sample.SMS) - 1
MARGIN = 0.1
WAKE_STAY_S = 20.0
OBJECTIVES = {"m0": Slo(400.0, 60.0), "m1": Slo(900.0, 120.0)}
CLOSE = 1e-4


@dataclass(frozen=True)
class Request:
    model: str
    tokens_in: int
    tokens_out: int
    slo: Slo


@dataclass(frozen=True)
class Option:
    """One way to serve the request."""

    slot: int
    action: str
    clock: int
    ttft_ms: float
    tbt_ms: float
    tbt_max_ms: float
    energy_j: float
    room: bool

    def slack(self, request: Request) -> float:
        """>= 1 where all objectives hold."""
        usable = 1 - MARGIN
        return min(
            request.slo.ttft_ms * usable / self.ttft_ms,
            min(request.slo.tbt_ms * usable, self.tbt_max_ms) / self.tbt_ms,
        )


def estimate(model: str, phase: Phase, rung: int, clock: int, work0: float, work1: float):
    e = TABLE.estimate(TABLE.index(model), phase, rung, clock, work0, work1)[0]
    return float(e["latency_ms"]), float(e["power_w"])


class Gpu:
    """A summary and reservations, read as DESIGN 4.1 says."""

    def __init__(
        self, slot: int, summary: GpuSummary, reserved: list[Request], on: Improvements
    ) -> None:
        self.slot, self.summary, self.reserved, self.on = slot, summary, reserved, on
        self.clock = sample.CLOCKS_MHZ.index(summary.clock_target_mhz)
        self.loads: dict[str, list[float]] = {}
        self.loading: dict[str, bool] = {}
        self.tbt_ms: dict[str, float] = {}
        for m in summary.models:
            count = m.running + m.waiting
            self.loads[m.model] = [count, m.context_tokens + m.waiting_tokens]
            self.loading[m.model] = m.state == ModelState.LOADING
            bound = m.tbt_ms if math.isfinite(m.tbt_ms) else OBJECTIVES[m.model].tbt_ms
            self.tbt_ms[m.model] = bound if count else math.inf
        self.pledged = {m.model for m in summary.models if m.state == ModelState.LOADING}
        self.pledged |= {r.model for r in reserved} - set(self.loads)
        for r in reserved:
            load = self.loads.setdefault(r.model, [0, 0.0])
            load[0] += 1
            load[1] += r.tokens_in
            self.loading.setdefault(r.model, True)
            bound = self.tbt_ms.get(r.model, math.inf)
            self.tbt_ms[r.model] = min(bound, OBJECTIVES[r.model].tbt_ms)
        self.busy = any(count for count, _ in self.loads.values())
        share = sum(
            self.step(m, self.clock)[0] / self.tbt_ms[m]
            for m, (count, _) in self.loads.items()
            if count
        )
        self.stretch = 1 / (1 - min(share, 0.9)) if on.interference else 1.0

    def upper(self, latency_ms: float) -> float:
        return latency_ms * (1 + sample.SPREAD) if self.on.spread_margin else latency_ms

    def joules(self, latency_ms: float, power_w: float, clock: int) -> float:
        idle_w = 0.0 if self.on.marginal_energy else sample.IDLE_W[clock]
        return latency_ms * (power_w + idle_w) / 1000

    def step(self, model: str, clock: int, more: int = 0, tokens: float = 0.0):
        count, context = self.loads.get(model, (0, 0.0))
        if count + more == 0:
            return 0.0, 0.0
        batch, each = (count + more, (context + tokens) / (count + more))
        if not self.on.batch_aware:
            batch, each = 1, tokens
        latency_ms, power_w = estimate(model, Phase.DECODE, FULL, clock, batch, each)
        return self.upper(latency_ms), self.joules(latency_ms, power_w, clock)

    def prefill_ms(self, model: str, tokens: float) -> float:
        return self.upper(estimate(model, Phase.PREFILL, FULL, self.clock, tokens, 0)[0])

    @property
    def wait_ms(self) -> float:
        queued = sum(
            m.waiting * self.prefill_ms(m.model, m.waiting_tokens / m.waiting)
            for m in self.summary.models
            if m.waiting and m.waiting_tokens
        )
        reserved = sum(self.prefill_ms(r.model, r.tokens_in) for r in self.reserved)
        stretched = self.stretch * reserved
        return max(self.summary.free_in_ms, self.stretch * queued) + stretched

    def options(self, request: Request) -> list[Option]:
        held = request.model in self.loads
        if self.summary.parked and not self.reserved:
            clocks = range(len(sample.CLOCKS_MHZ))
        elif self.busy and held and self.on.raise_clock:
            clocks = range(self.clock, len(sample.CLOCKS_MHZ))
        elif self.busy or not self.on.raise_clock:
            clocks = range(self.clock, self.clock + 1)
        else:
            clocks = range(len(sample.CLOCKS_MHZ))
        return [self.option(request, clock, held) for clock in clocks]

    def option(self, request: Request, clock: int, held: bool) -> Option:
        alone_ms, alone_w = estimate(
            request.model, Phase.PREFILL, FULL, clock, request.tokens_in, 0
        )
        prefill_ms = self.upper(alone_ms)
        mean = request.tokens_in + request.tokens_out / 2
        last = request.tokens_in + request.tokens_out
        parked = self.summary.parked and not self.reserved
        energy_j = self.joules(alone_ms, alone_w, clock)
        start_ms = 0.0
        if not held:
            start_ms = sample.LOAD_MS + (sample.WAKE_MS if parked else 0)
        elif self.loading[request.model]:
            start_ms = sample.LOAD_MS + (sample.WAKE_MS if self.summary.parked else 0)
        others = sum(self.step(m, clock)[0] for m in self.loads if m != request.model)
        if not self.on.interference:
            others = 0.0
        if self.busy and held:
            tbt_ms, per_token = self.joined(request, clock, mean, last, others)
            energy_j += request.tokens_out * per_token
        else:
            step_ms, step_w = estimate(request.model, Phase.DECODE, FULL, clock, 1, mean)
            tbt_ms = others + self.upper(
                estimate(request.model, Phase.DECODE, FULL, clock, 1, last)[0]
            )
            energy_j += request.tokens_out * self.joules(step_ms, step_w, clock)
            alone_for_ms = alone_ms + request.tokens_out * step_ms
            energy_j += self.static_j(clock, alone_for_ms, held, parked)
        scaled_start = start_ms if held else self.stretch * start_ms
        return Option(
            self.slot,
            "run" if held else "wake" if parked else "load",
            clock,
            self.wait_ms + scaled_start + self.stretch * prefill_ms,
            tbt_ms,
            min(self.tbt_ms.values(), default=math.inf) * (1 - MARGIN),
            energy_j,
            self.room(request, held),
        )

    def joined(self, request: Request, clock: int, mean: float, last: float, others: float):
        """Round and joules of an output token; linear between no context and the longest."""
        start = self.clock if self.on.charge_raise else clock
        without_j = sum(self.step(m, start)[1] for m in self.loads)
        rest_j = sum(self.step(m, clock)[1] for m in self.loads if m != request.model)
        added_w = sample.IDLE_W[clock] - sample.IDLE_W[start]

        def at(tokens: float):
            own_ms, own_j = self.step(request.model, clock, 1, tokens)
            round_ms = own_ms + others
            if not self.on.marginal_energy:
                return round_ms, own_j
            return round_ms, own_j + rest_j - without_j + added_w * round_ms / 1000

        near, far = at(0.0), at(sample.CONTEXT_TOKENS)
        slope = [(b - a) / sample.CONTEXT_TOKENS for a, b in zip(near, far, strict=True)]
        return near[0] + last * slope[0], near[1] + mean * slope[1]

    def static_j(self, clock: int, alone_ms: float, held: bool, parked: bool) -> float:
        if parked:
            awake_ms = sample.LOAD_MS + sample.WAKE_MS + max(alone_ms, WAKE_STAY_S * 1000)
            return (sample.IDLE_W[clock] - sample.PARKED_W) * awake_ms / 1000
        load_j = 0.0 if held else sample.LOAD_MS * sample.IDLE_W[clock] / 1000
        raised = not self.busy and self.on.marginal_energy and self.on.charge_raise
        added_w = sample.IDLE_W[clock] - sample.IDLE_W[self.clock] if raised else 0.0
        return load_j + added_w * alone_ms / 1000

    def room(self, request: Request, held: bool) -> bool:
        need = request.tokens_in + request.tokens_out
        spoken_for = sum(r.tokens_in + r.tokens_out for r in self.reserved)
        free_bytes = self.summary.memory_free_bytes
        if not held:
            for model in self.pledged:
                free_bytes -= sample.WEIGHT_BYTES + spoken_for * sample.KV_BYTES
                assert model in MODELS
            return sample.WEIGHT_BYTES + need * sample.KV_BYTES <= free_bytes
        if request.model in self.pledged:
            tokens = (free_bytes - sample.WEIGHT_BYTES) / sample.KV_BYTES
            return need <= tokens - spoken_for
        return need <= self.summary.kv_tokens_free - spoken_for


def random_summary(rng: random.Random) -> GpuSummary:
    parked = rng.random() < 0.2
    models = []
    for model in MODELS:
        if parked or rng.random() < 0.3:
            continue
        running = rng.choice([0, 0, 1, 5, 20])
        waiting = rng.choice([0, 0, 3])
        models.append(
            ModelSummary(
                model,
                ModelState.LOADING if rng.random() < 0.2 else ModelState.READY,
                running,
                waiting,
                running * rng.randint(50, 1500),
                waiting * rng.randint(20, 500),
                rng.uniform(5, rng.choice([15, 25, 60])) if running else math.inf,
            )
        )
    clock = rng.choice(sample.CLOCKS_MHZ)
    return sample.summary(
        *models,
        clock_mhz=clock,
        clock_target_mhz=clock,
        sms_free=rng.choice([10, 20, 50, 90, 100]),
        free_in_ms=rng.choice([0.0, rng.uniform(0, 300)]),
        kv_tokens_free=rng.choice([500, 50_000]),
        memory_free_bytes=rng.choice([1 << 21, 1 << 28]),
        parked=parked,
    )


def random_request(rng: random.Random, gpus: list["Gpu"]) -> Request:
    """With objectives that some GPU just meets or just misses at some clock."""
    bare = Request(rng.choice(MODELS), rng.randint(1, 3000), rng.randint(1, 800), Slo(1.0, 1.0))
    near = rng.choice(rng.choice(gpus).options(bare))
    ttft_ms = near.ttft_ms / (1 - MARGIN) * rng.choice([0.9, 1.1, 2.0, 10.0])
    tbt_ms = near.tbt_ms / (1 - MARGIN) * rng.choice([0.9, 1.1, 2.0, 10.0])
    return Request(bare.model, bare.tokens_in, bare.tokens_out, Slo(ttft_ms, tbt_ms))


def build(policy: str, rng: random.Random, count: int, on: Improvements):
    view = ClusterView({"gpu": TABLE}, policy, MARGIN, wake_stay_s=WAKE_STAY_S, improvements=on)
    for model in MODELS:
        view.add_model(model, model, OBJECTIVES[model], sample.CONTEXT_TOKENS)
    gpus = []
    for slot in range(count):
        view.add_gpu(f"g{slot}", "gpu", 100, sample.CLOCKS_MHZ, 1 << 30, MODELS)
        summary = random_summary(rng)
        view.update(slot, sample.summary())
        view.update(slot, summary)
        reserved = []
        for ticket in range(rng.choice([0, 0, 1, 3])):
            r = Request(rng.choice(MODELS), rng.randint(1, 900), rng.randint(1, 99), Slo(1, 1))
            view.reserve(slot, ticket, r.model, r.tokens_in, 0.0, r.tokens_out)
            reserved.append(r)
        gpus.append(Gpu(slot, summary, reserved, on))
    return view, gpus


def possible(request: Request, rungs: range) -> bool:
    """Whether an idle GPU could meet the objectives. Not for ones that are equal up to rounding."""
    last = request.tokens_in + request.tokens_out
    best = 0.0
    for rung in rungs:
        for clock in range(len(sample.CLOCKS_MHZ)):
            ttft = estimate(request.model, Phase.PREFILL, rung, clock, request.tokens_in, 0)[0]
            tbt = estimate(request.model, Phase.DECODE, rung, clock, 1, last)[0]
            best = max(best, min(request.slo.ttft_ms / ttft, request.slo.tbt_ms / tbt))
    assume(abs(best - 1) > CLOSE)
    return best >= 1


improvements = st.builds(
    Improvements,
    marginal_energy=st.booleans(),
    batch_aware=st.booleans(),
    interference=st.booleans(),
    raise_clock=st.booleans(),
    charge_raise=st.booleans(),
    spread_margin=st.booleans(),
)


def best_on_time(gpu: Gpu, request: Request) -> Option | None:
    """What the rule takes on one GPU: the least clock that will do if busy, else the cheapest."""
    good = [o for o in gpu.options(request) if o.room and o.slack(request) >= 1]
    if not good:
        return None
    held = request.model in gpu.loads
    if held and gpu.busy:
        return good[0]
    alone = [o for o in gpu.options(request) if alone_on_time(gpu, o, request)]
    if not held:
        return min(alone, key=lambda o: o.energy_j) if alone else None
    cheapest = min(alone, key=lambda o: o.energy_j) if alone else None
    return cheapest if cheapest in good else good[0]


def alone_on_time(gpu: Gpu, option: Option, request: Request) -> bool:
    """Whether an idle GPU at this clock would do."""
    last = request.tokens_in + request.tokens_out
    prefill = estimate(request.model, Phase.PREFILL, FULL, option.clock, request.tokens_in, 0)
    step = estimate(request.model, Phase.DECODE, FULL, option.clock, 1, last)
    usable = 1 - MARGIN
    return (
        gpu.upper(prefill[0]) <= request.slo.ttft_ms * usable
        and gpu.upper(step[0]) <= request.slo.tbt_ms * usable
    )


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), improvements)
def test_festina_takes_the_least_marginal_energy(seed, count, on):
    rng = random.Random(seed)
    view, gpus = build("festina", rng, count, on)
    request = random_request(rng, gpus)
    options = [o for gpu in gpus for o in gpu.options(request)]
    assume(all(abs(o.slack(request) - 1) > CLOSE for o in options))
    chosen = [o for gpu in gpus if (o := best_on_time(gpu, request)) and o.slack(request) >= 1]
    if not possible(request, range(FULL, FULL + 1)):
        with pytest.raises(InfeasibleError):
            view.place(request.model, request.tokens_in, request.tokens_out, request.slo)
        return
    if not chosen:
        try:
            placed = view.place(request.model, request.tokens_in, request.tokens_out, request.slo)
        except OverloadedError:
            assert not any(o.room for o in options)
        else:
            assert not placed.on_time
        return
    placed = view.place(request.model, request.tokens_in, request.tokens_out, request.slo)
    assert placed.on_time
    least = min(o.energy_j for o in chosen)
    clock = sample.CLOCKS_MHZ.index(placed.clock_mhz)
    same = next(o for o in options if (o.slot, o.clock) == (placed.slot, clock))
    assert placed.action == same.action
    assert placed.energy_j == pytest.approx(same.energy_j, rel=1e-3, abs=1e-3)
    assert placed.ttft_ms == pytest.approx(same.ttft_ms, rel=1e-3)
    assert placed.tbt_ms == pytest.approx(same.tbt_ms, rel=1e-3)
    assert same.slack(request) >= 1
    assert placed.energy_j <= least + 1e-3 * max(1.0, abs(least))


# --- the paper's form -----------------------------------------------------------------------------


def paper_rung(summary: GpuSummary) -> int | None:
    fitting = [i for i, sms in enumerate(sample.SMS) if sms <= summary.sms_free]
    return fitting[-1] if fitting else None


def paper_figures(request: Request, rung: int, clock: int):
    mean = request.tokens_in + request.tokens_out / 2
    last = request.tokens_in + request.tokens_out
    first_ms, first_w = estimate(request.model, Phase.PREFILL, rung, clock, request.tokens_in, 0)
    step_ms, step_w = estimate(request.model, Phase.DECODE, rung, clock, 1, mean)
    last_ms, _ = estimate(request.model, Phase.DECODE, rung, clock, 1, last)
    idle_w = sample.IDLE_W[clock]
    energy_j = first_ms * (first_w + idle_w) + request.tokens_out * step_ms * (step_w + idle_w)
    return first_ms, last_ms, energy_j / 1000


def paper_request(rng: random.Random, gpus: list[Gpu]) -> Request:
    """With objectives that some GPU just meets, or just misses, at the present or the top clock."""
    bare = Request(rng.choice(MODELS), rng.randint(1, 3000), rng.randint(1, 300), Slo(1.0, 1.0))
    gpu = rng.choice(gpus)
    clock = rng.choice([gpu.clock, len(sample.CLOCKS_MHZ) - 1])
    ttft_ms, tbt_ms, _ = paper_figures(bare, paper_rung(gpu.summary) or 0, clock)
    ttft_ms = (gpu.summary.free_in_ms + ttft_ms) / (1 - MARGIN) * rng.choice([0.95, 1.1, 2.0])
    tbt_ms = tbt_ms / (1 - MARGIN) * rng.choice([0.95, 1.05, 2.0])
    return Request(bare.model, bare.tokens_in, bare.tokens_out, Slo(ttft_ms, tbt_ms))


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_paper_takes_what_its_three_phases_say(seed, count):
    rng = random.Random(seed)
    off = Improvements(interference=False, spread_margin=False)
    view, gpus = build("paper", rng, count, off)
    request = paper_request(rng, gpus)
    usable = 1 - MARGIN
    top = len(sample.CLOCKS_MHZ) - 1
    feasible, boosted, new, slacks = [], [], [], []
    for gpu in gpus:
        held = request.model in gpu.loads
        if not held:
            if gpu.room(request, held):
                new.append(gpu)
            continue
        wait_ms = gpu.summary.free_in_ms
        wait_ms += sum(gpu.prefill_ms(r.model, r.tokens_in) for r in gpu.reserved)
        if gpu.loading[request.model]:
            wait_ms += sample.LOAD_MS + (sample.WAKE_MS if gpu.summary.parked else 0)
        rung = paper_rung(gpu.summary)
        if rung is None or not gpu.room(request, held):
            continue
        for clock, found in ((gpu.clock, feasible), (top, boosted)):
            ttft_ms, tbt_ms, energy_j = paper_figures(request, rung, clock)
            slack = min(
                request.slo.ttft_ms * usable / (wait_ms + ttft_ms),
                request.slo.tbt_ms * usable / tbt_ms,
            )
            slacks.append(slack)
            if slack >= 1:
                found.append((gpu, wait_ms, energy_j))
    assume(all(abs(slack - 1) > CLOSE for slack in slacks))
    if not possible(request, range(len(sample.SMS))):
        with pytest.raises(InfeasibleError):
            view.place(request.model, request.tokens_in, request.tokens_out, request.slo)
        return
    if not (feasible or boosted or new):
        try:
            placed = view.place(request.model, request.tokens_in, request.tokens_out, request.slo)
        except OverloadedError:
            return
        assert not placed.on_time
        return
    placed = view.place(request.model, request.tokens_in, request.tokens_out, request.slo)
    if feasible:
        least = min(energy_j for _, _, energy_j in feasible)
        assume(all(abs(e / least - 1.02) > CLOSE for _, _, e in feasible))
        tied = [gpu for gpu, _, energy_j in feasible if energy_j <= least * 1.02]
        assert placed.slot in [gpu.slot for gpu in tied]
        assert (placed.action, placed.on_time) == ("run", True)
    elif boosted:
        earliest = min(wait_ms for _, wait_ms, _ in boosted)
        first = [g.slot for g, wait_ms, _ in boosted if wait_ms <= earliest * (1 + CLOSE)]
        assert placed.slot in first
        assert placed.clock_mhz == sample.CLOCKS_MHZ[-1]
    else:
        awake = [gpu for gpu in new if not gpu.summary.parked or gpu.reserved]
        assert placed.slot in [gpu.slot for gpu in awake or new]
        assert placed.action == ("load" if awake else "wake")
