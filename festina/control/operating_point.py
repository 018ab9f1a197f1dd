"""One GPU's operating point: what runs next, on how many SMs, at which clock (DESIGN 4.2).

The decision is native (`csrc/core/operating_point`). Tasks are ordered by urgency,
Score = Latency / (Slack - beta * Age) (paper section 3.4, equation 4), and admitted in that order
as long as memory and SMs last, skipping what does not fit. Then all clocks are swept: at each,
every task gets the fewest SMs that meet its deadline, and the clock of least energy at which they
fit is taken.

A task that cannot meet its deadline any more takes the SMs that are left, and the clock is the
highest, so that it is late by as little as possible.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from festina import _core
from festina.control.profile import ProfileTable

TASK = np.dtype(
    [
        ("model", np.int32),
        ("phase", np.int32),
        ("work0", np.float32),
        ("work1", np.float32),
        ("deadline_ms", np.float32),
        ("age_ms", np.float32),
        ("memory_bytes", np.float64),
    ]
)
"""A runnable decode step of one model's batch, or a waiting prefill.

Fields:
    model: `ProfileTable.index` of its model.
    phase: `festina.types.Phase`.
    work0: New tokens, or batch; > 0.
    work1: Cached tokens, or context tokens per sequence; >= 0.
    deadline_ms: From now: TTFT for a prefill, TBT for a decode; negative when it has passed.
    age_ms: Since it could have run; >= 0.
    memory_bytes: Device memory that it needs beyond what it holds; >= 0.
"""

Plan = _core.Plan
"""What runs next.

Attributes:
    clock_mhz: The clock to set; the present one where clocks cannot be set.
    on_time: Every admitted task meets its deadline.
    energy_j: Predicted energy of the admitted tasks, idle power included.
    power_w: Predicted power while all of them run.
    span_ms: Predicted time until the last of them ends.
    rung: (n,) int32, each task's place in `ProfileTable.sms`; -1 where it is not admitted.
    latency_ms: (n,) float32, predicted; inf where it is not admitted.
"""


class SolverSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of `Solver`.

    The improvements of the `festina` form are off at these values: `one_idle_power` False,
    `bandwidth_bytes_per_s` inf, `knee_mhz` 0, `switch_cost_j` and `dwell_ms` 0.

    Attributes:
        policy: Ours, or the paper's, which takes no notice of the improvements.
        margin: Share of each deadline kept in reserve, in [0, 1).
        beta: Weight of age in the score of prefills.
        clocks_settable: False where the clock cannot be set: only the present one is considered.
        one_idle_power: Charge idle power once for all co-runners; else once for each.
        bandwidth_bytes_per_s: Memory bandwidth that co-runners share; when they ask for more, all
            slow down alike.
        knee_mhz: End of the minimum-voltage region: lower clocks are not taken.
        switch_cost_j: Energy of one change of clock. A clock is changed only if the saving over
            `dwell_ms` exceeds it, or if an objective or the power budget is at risk.
        dwell_ms: How long a clock is kept at least, risk excepted.
    """

    policy: Literal["festina", "paper"] = "festina"
    margin: float = 0.0
    beta: float = 1.0
    clocks_settable: bool = True
    one_idle_power: bool = True
    bandwidth_bytes_per_s: float = math.inf
    knee_mhz: int = 0
    switch_cost_j: float = 0.0
    dwell_ms: float = 0.0


DEFAULT_SETTINGS = SolverSettings()


class Solver:
    """Chooses operating points of one GPU. Used by one thread.

    Args:
        profile: Of the device; corrections made to it count at once.
        settings: Rule and improvements.

    Raises:
        BadRequestError: A setting is out of range.
    """

    def __init__(self, profile: ProfileTable, settings: SolverSettings = DEFAULT_SETTINGS) -> None:
        self._solver = _core.OperatingPointSolver(profile.native, msgspec.structs.asdict(settings))

    def solve(
        self,
        tasks: NDArray[np.void],
        *,
        clock_mhz: int,
        sms: int,
        memory_free_bytes: float,
        since_switch_ms: float = math.inf,
        power_budget_w: float = math.inf,
    ) -> Plan:
        """What runs next.

        Args:
            tasks: (n,) of `TASK`; n may be 0.
            clock_mhz: The device's clock now.
            sms: SMs to share out.
            memory_free_bytes: Memory to share out.
            since_switch_ms: Time since the clock was last changed.
            power_budget_w: Power that the device may draw (`festina` form).

        Raises:
            BadRequestError: `tasks` has another dtype, or a figure is out of range; `field` names
                the task and the field.
        """
        return self._solver.solve(
            tasks, clock_mhz, sms, memory_free_bytes, since_switch_ms, power_budget_w
        )
