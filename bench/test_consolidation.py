"""How long a plan of consolidation takes: 1,000 GPUs that hold 4,000 models (aim: 100 ms)."""

import random

import pytest

from festina.control.consolidation import (
    ConsolidationPlanner,
    ConsolidationRules,
    GpuNow,
    ModelKind,
    ModelOnGpu,
)
from festina.control.profile import ProfileTable, shipped_profiles

KIND = "H100-SXM5-80GB"
SHAPES = ("llama-3b", "llama-8b", "qwen-14b", "yi-9b")
GPUS = 1000
MODELS_PER_GPU = 4


def cluster(table: ProfileTable) -> tuple[list[ModelKind], list[GpuNow]]:
    """Each GPU holds four models; two of three have requests in flight."""
    rng = random.Random(1)
    models = [
        ModelKind(f"m{number}", SHAPES[number % len(SHAPES)], 4096, 2000.0, 100.0)
        for number in range(GPUS * MODELS_PER_GPU)
    ]
    gpus = []
    for number in range(GPUS):
        held = models[MODELS_PER_GPU * number : MODELS_PER_GPU * (number + 1)]
        loads = []
        for model in held:
            running = rng.choice((0, 1, 2))
            tbt_ms = 100.0 if running else float("inf")
            rate, tokens = 0.3 * rng.random(), 800.0 * running
            loads.append(ModelOnGpu(model.name, running, 0, tokens, tbt_ms, rate, 500.0))
        free_bytes = rng.uniform(20e9, 40e9)
        clocks = table.clocks_mhz
        gpus.append(
            GpuNow(f"g{number}", KIND, 132, 990, clocks, 80 << 30, free_bytes, models=tuple(loads))
        )
    return models, gpus


@pytest.mark.parametrize("drains", [1, 62])
def test_a_plan_for_a_thousand_gpus(benchmark, drains):
    """Whether one must be woken, and else which to empty: from summaries to the plan."""
    table = ProfileTable.load(shipped_profiles() / KIND)
    models, gpus = cluster(table)
    planner = ConsolidationPlanner({KIND: table}, models, ConsolidationRules(drains=drains))

    def plan():
        return planner.wake(gpus), planner.empty(gpus)

    wake, empty = benchmark(plan)
    assert wake is None
    assert 1 <= len(empty) <= drains
