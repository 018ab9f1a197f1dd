"""Operating points against a slow, independent statement of both rules in plain Python."""

import math
import random

import decision_samples as sample
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from festina.control.operating_point import TASK, Solver, SolverSettings
from festina.types import Phase

TABLE = sample.table(scales=(1.0, 1.7), power=0.1)
CLOCKS = range(len(sample.CLOCKS_MHZ))
RUNGS = range(len(sample.SMS))
CLOSE = 1e-4


def figures(task, rung: int, clock: int):
    e = TABLE.estimate(task["model"], task["phase"], rung, clock, task["work0"], task["work1"])[0]
    return float(e["latency_ms"]), float(e["power_w"])


def random_tasks(rng: random.Random, count: int):
    tasks = np.zeros(count, TASK)
    for one in tasks:
        one["model"] = rng.randrange(2)
        one["phase"] = rng.choice(list(Phase))
        prefill = one["phase"] == Phase.PREFILL
        one["work0"] = rng.uniform(1, 3000) if prefill else rng.uniform(1, 60)
        one["work1"] = rng.uniform(0, 4000)
        one["deadline_ms"] = rng.uniform(-20, 400) if prefill else rng.uniform(4, 60)
        one["age_ms"] = rng.choice([0.0, rng.uniform(0, 300)])
        one["memory_bytes"] = rng.choice([0.0, rng.uniform(0, 100)])
    return tasks


class Reference:
    """One decision, as DESIGN 4.2 and the paper's section 3.4 say."""

    def __init__(self, tasks, rules: SolverSettings, state: dict) -> None:
        self.tasks, self.rules, self.state = tasks, rules, state
        self.paper = rules.policy == "paper"
        self.now = sample.CLOCKS_MHZ.index(state["clock_mhz"])
        self.clocks = CLOCKS if rules.clocks_settable else [self.now]
        self.deadlines = [
            d * (1 - rules.margin) if d > 0 else d for d in map(float, tasks["deadline_ms"])
        ]
        self.admit()

    def least(self, i: int, clock: int, slowdown: float = 1.0) -> int | None:
        for rung in RUNGS:
            latency_ms = figures(self.tasks[i], rung, clock)[0]
            assume(abs(latency_ms * slowdown - self.deadlines[i]) > CLOSE * latency_ms)
            if latency_ms * slowdown <= self.deadlines[i]:
                return rung
        return None

    def score(self, i: int):
        one = self.tasks[i]
        full = max(r for r in RUNGS if sample.SMS[r] <= self.state["sms"])
        beta = self.rules.beta if one["phase"] == Phase.PREFILL else 0.0
        left = float(one["deadline_ms"]) - beta * float(one["age_ms"])
        assume(abs(left) > 1e-3)
        if left <= 0:
            return (1, -left)
        return (0, figures(one, full, self.now)[0] / left)

    def admit(self) -> None:
        order = sorted(range(len(self.tasks)), key=self.score, reverse=True)
        sms, memory = self.state["sms"], self.state["memory_free_bytes"]
        self.admitted: dict[int, int] = {}
        self.late = set()
        for i in order:
            if self.tasks[i]["memory_bytes"] > memory:
                continue
            rung = self.least(i, self.clocks[-1])
            if rung is None or sample.SMS[rung] > self.state["sms"]:
                rung = max((r for r in RUNGS if sample.SMS[r] <= sms), default=None)
                if rung is not None:
                    self.late.add(i)
            if rung is None or sample.SMS[rung] > sms:
                continue
            self.admitted[i] = rung
            sms -= sample.SMS[rung]
            memory -= self.tasks[i]["memory_bytes"]

    def at(self, clock: int):
        """(feasible, rungs, slowdown) at a clock."""
        slowdown, rungs = 1.0, self.rungs(clock, 1.0)
        limit = self.rules.bandwidth_bytes_per_s
        if not self.paper and math.isfinite(limit):
            for _ in range(4):
                asked = len(rungs) * sample.BYTES_PER_S / limit
                if asked <= slowdown:
                    break
                slowdown = asked
                rungs = self.rungs(clock, slowdown)
        feasible = None not in rungs.values()
        feasible = feasible and sum(sample.SMS[r] for r in rungs.values()) <= self.state["sms"]
        return feasible, rungs, slowdown

    def rungs(self, clock: int, slowdown: float) -> dict[int, int | None]:
        return {
            i: rung if i in self.late else self.least(i, clock, slowdown)
            for i, rung in self.admitted.items()
        }

    def totals(self, clock: int, rungs, slowdown: float):
        """(dynamic joules, sum of latencies, span, power) at a clock."""
        costs = [figures(self.tasks[i], rung, clock) for i, rung in rungs.items()]
        dynamic_j = sum(ms * watts for ms, watts in costs) / 1000
        power_w = sample.IDLE_W[clock] + sum(watts for _, watts in costs) / slowdown
        span_ms = max((ms for ms, _ in costs), default=0.0) * slowdown
        return dynamic_j, sum(ms for ms, _ in costs), span_ms, power_w

    def allowed(self) -> dict[int, tuple]:
        found = {}
        for clock in self.clocks:
            if sample.CLOCKS_MHZ[clock] < self.rules.knee_mhz and not self.paper:
                continue
            feasible, rungs, slowdown = self.at(clock)
            if not feasible:
                continue
            total = self.totals(clock, rungs, slowdown)
            budget_w = math.inf if self.paper else self.state["power_budget_w"]
            assume(abs(total[3] - budget_w) > CLOSE * total[3])
            if total[3] <= budget_w:
                found[clock] = total
        return found

    def energies(self) -> dict[int, float]:
        found = self.allowed()
        longest = max((total[2] for total in found.values()), default=0.0) or 1.0
        once = self.rules.one_idle_power and not self.paper
        return {
            clock: total[0] + sample.IDLE_W[clock] * (longest if once else total[1]) / 1000
            for clock, total in found.items()
        }


rules = st.builds(
    SolverSettings,
    policy=st.sampled_from(["festina", "paper"]),
    margin=st.sampled_from([0.0, 0.1]),
    beta=st.sampled_from([0.0, 1.0]),
    clocks_settable=st.booleans(),
    one_idle_power=st.booleans(),
    bandwidth_bytes_per_s=st.sampled_from([math.inf, 1.5 * sample.BYTES_PER_S]),
    knee_mhz=st.sampled_from([0, 900]),
)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 5), rules)
def test_the_plan_is_the_cheapest_of_all_clocks(seed, count, chosen):
    rng = random.Random(seed)
    tasks = random_tasks(rng, count)
    state = {
        "clock_mhz": rng.choice(sample.CLOCKS_MHZ),
        "sms": rng.choice([20, 70, 100]),
        "memory_free_bytes": rng.choice([50.0, 1e9]),
        "power_budget_w": rng.choice([math.inf, rng.uniform(60, 500)]),
    }
    reference = Reference(tasks, chosen, state)
    plan = Solver(TABLE, chosen).solve(tasks, **state)
    clock = sample.CLOCKS_MHZ.index(plan.clock_mhz)
    admitted = {i for i in range(count) if plan.rung[i] >= 0}
    assert admitted == set(reference.admitted)
    assert sum(sample.SMS[plan.rung[i]] for i in admitted) <= state["sms"]

    feasible, rungs, slowdown = reference.at(clock)
    assert plan.on_time == (feasible and not reference.late)
    if feasible:
        assert {i: int(plan.rung[i]) for i in admitted} == rungs
        dynamic_j, _, span_ms, power_w = reference.totals(clock, rungs, slowdown)
        assert plan.span_ms == pytest.approx(span_ms, rel=1e-4)
        assert plan.power_w == pytest.approx(power_w, rel=1e-4)
        assert plan.energy_j >= dynamic_j * (1 - 1e-4)
    else:
        assert {i: int(plan.rung[i]) for i in admitted} == reference.admitted

    energies = reference.energies()
    if not chosen.clocks_settable:
        assert clock == reference.now
    elif reference.late or not energies:
        within = [
            c for c in CLOCKS if chosen.policy == "paper" or state["power_budget_w"] == math.inf
        ]
        if within:
            assert clock == CLOCKS[-1]
    else:
        assert clock in energies
        assert energies[clock] <= min(energies.values()) * (1 + 1e-4)
