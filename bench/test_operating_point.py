"""One GPU's operating point for 10 to 100 tasks x 10 clocks, beside numpy and a Python loop.

The rivals do less: they get every task's latency and power at every SM rung and clock in memory, so
that they locate no work on the profile's axes, and they skip admission. The paper reports 94 us for
100 tasks.
"""

import numpy as np
import pytest

from festina.control.operating_point import TASK, Solver, SolverSettings
from festina.control.profile import ProfileTable, shipped_profiles
from festina.types import Phase

DEVICE = "H100-SXM5-80GB"
SIZES = (10, 25, 50, 100)
STATE = {"clock_mhz": 1395, "sms": 132 * 100, "memory_free_bytes": 40e9}
"""SMs for all tasks at once: nothing is skipped, which is the most work."""

FESTINA = SolverSettings(
    bandwidth_bytes_per_s=3e12, knee_mhz=990, switch_cost_j=5.0, dwell_ms=1000.0
)


@pytest.fixture(scope="module")
def profile():
    return ProfileTable.load(shipped_profiles() / DEVICE)


def tasks_of(profile, count):
    rng = np.random.default_rng(1)
    tasks = np.zeros(count, TASK)
    tasks["model"] = rng.integers(0, len(profile.models), count)
    tasks["phase"] = rng.integers(0, 2, count)
    prefill = tasks["phase"] == Phase.PREFILL
    tasks["work0"] = np.where(prefill, rng.uniform(64, 4096, count), rng.uniform(1, 32, count))
    tasks["work1"] = np.where(prefill, 0, rng.uniform(100, 4000, count))
    tasks["deadline_ms"] = np.where(
        prefill, rng.uniform(300, 2000, count), rng.uniform(30, 200, count)
    )
    tasks["age_ms"] = rng.uniform(0, 200, count)
    return tasks


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("policy", ["festina", "paper"])
def test_solve(benchmark, profile, policy, count):
    benchmark.group = f"{count} tasks x {len(profile.clocks_mhz)} clocks"
    solver = Solver(profile, SolverSettings(policy=policy))
    tasks = tasks_of(profile, count)
    plan = benchmark(solver.solve, tasks, **STATE)
    assert (plan.rung >= 0).all()


@pytest.mark.parametrize("count", SIZES)
def test_solve_with_every_improvement(benchmark, profile, count):
    benchmark.group = f"{count} tasks x {len(profile.clocks_mhz)} clocks"
    solver = Solver(profile, FESTINA)
    benchmark(solver.solve, tasks_of(profile, count), **STATE)


def grids(profile, tasks):
    """Latency and power (tasks, clocks, rungs)."""
    rungs, clocks = len(profile.sms), len(profile.clocks_mhz)
    i, c, r = np.indices((len(tasks), clocks, rungs)).reshape(3, -1)
    columns = (tasks[name][i] for name in ("model", "phase"))
    found = profile.estimate(*columns, r, c, tasks["work0"][i], tasks["work1"][i])
    shape = (len(tasks), clocks, rungs)
    return found["latency_ms"].reshape(shape), found["power_w"].reshape(shape)


def test_rival_numpy(benchmark, profile):
    benchmark.group = f"100 tasks x {len(profile.clocks_mhz)} clocks"
    tasks = tasks_of(profile, 100)
    latency_ms, power_w = grids(profile, tasks)
    sms = np.array(profile.sms)
    idle_w = np.array([profile.idle_w(clock) for clock in profile.clocks_mhz])

    def solve():
        good = latency_ms <= tasks["deadline_ms"][:, None, None]
        rung = good.argmax(axis=2)
        feasible = good.any(axis=2).all(axis=0) & (sms[rung].sum(axis=0) <= STATE["sms"])
        at = np.take_along_axis(latency_ms, rung[:, :, None], 2)[:, :, 0]
        watts = np.take_along_axis(power_w, rung[:, :, None], 2)[:, :, 0]
        energy = (at * watts).sum(axis=0) + idle_w * at.max()
        return int(np.where(feasible, energy, np.inf).argmin())

    benchmark(solve)


def test_rival_python_loop(benchmark, profile):
    benchmark.group = f"100 tasks x {len(profile.clocks_mhz)} clocks"
    tasks = tasks_of(profile, 100)
    latency_ms, power_w = (grid.tolist() for grid in grids(profile, tasks))
    deadlines = tasks["deadline_ms"].tolist()
    idle_w = [profile.idle_w(clock) for clock in profile.clocks_mhz]

    def solve():
        best, least = None, float("inf")
        for clock, idle in enumerate(idle_w):
            sms, energy, span = 0, 0.0, 0.0
            for i, deadline in enumerate(deadlines):
                row = latency_ms[i][clock]
                rung = next((r for r, ms in enumerate(row) if ms <= deadline), None)
                if rung is None:
                    break
                sms += profile.sms[rung]
                energy += row[rung] * power_w[i][clock][rung]
                span = max(span, row[rung])
            else:
                if sms <= STATE["sms"] and energy + idle * span < least:
                    best, least = clock, energy + idle * span
        return best

    benchmark(solve)
