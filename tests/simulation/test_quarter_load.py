"""At a quarter of the load our policy keeps the objectives of every workload."""

import pytest

from festina.simulator.run import ClusterSettings, simulate
from festina.simulator.workloads import RECIPES, build_workload


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_quarter_of_the_load_is_in_time(name):
    workload = build_workload(name, load=0.25)
    result = simulate(workload, ClusterSettings(), "festina")
    assert result.slo_attainment >= 0.95
    assert result.failed == result.rejected == 0
