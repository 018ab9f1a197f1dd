"""No policy uses less energy than the oracle says is needed, whatever the GPU and the truth."""

import numpy as np
import pytest

from festina.device import physics
from festina.simulator.oracle import lower_bound
from festina.simulator.policies import POLICIES
from festina.simulator.run import ClusterSettings, simulate, truth_bias
from festina.simulator.workload import Deployment, Workload

SHAPES = ("llama-3b", "llama-8b", "yi-9b", "llama-8b")


def workload(seed, rate, seconds=60.0):
    rng = np.random.default_rng(seed)
    n = int(rate * seconds)
    outputs = rng.integers(1, 99, n)  # so few gaps that none is excused
    return Workload(
        name="test",
        deployments=tuple(Deployment(f"m{i}", shape) for i, shape in enumerate(SHAPES)),
        duration_s=seconds,
        synthetic=True,
        arrival_ms=np.sort(rng.uniform(0.0, seconds * 1e3, n)),
        model=rng.integers(0, len(SHAPES), n).astype(np.int32),
        input_tokens=rng.integers(16, 1500, n).astype(np.int32),
        cached_tokens=np.zeros(n, np.int32),
        output_tokens=outputs.astype(np.int32),
        follows=np.full(n, -1, np.int32),
        ttft_ms=np.full(n, 1000.0, np.float32),
        tbt_ms=np.full(n, 100.0, np.float32),
    )


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize(
    ("kind", "seed", "rate"), [("h100", 1, 0.5), ("h100", 2, 4.0), ("a100", 3, 2.0)]
)
def test_no_policy_beats_the_bound(policy, kind, seed, rate):
    work = workload(seed, rate)
    cluster = ClusterSettings(gpus=2, gpu=physics.gpu_named(kind), seed=seed)
    result = simulate(work, cluster, policy)
    bias = truth_bias(work, cluster)
    bound = lower_bound(work, cluster, result.slo_attainment, bias=bias)
    assert result.energy_j > bound.energy_j
    assert bound.energy_j > bound.parts.parked
