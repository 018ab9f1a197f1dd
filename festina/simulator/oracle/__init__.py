"""How much energy a workload needs at least, with perfect foresight (docs/oracle.md)."""

from festina.simulator.oracle.bound import Cluster, OracleBound, OracleParts, lower_bound

__all__ = ["Cluster", "OracleBound", "OracleParts", "lower_bound"]
