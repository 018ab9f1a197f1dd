"""The workloads of the evaluation, and trace files, as requests for the simulator."""

from festina.simulator.workloads.build import RECIPES, Recipe, build_workload
from festina.simulator.workloads.objectives import OBJECTIVES, objectives_ms

__all__ = ["OBJECTIVES", "RECIPES", "Recipe", "build_workload", "objectives_ms"]
