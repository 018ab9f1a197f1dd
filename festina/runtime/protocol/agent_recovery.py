"""An engine that is gone comes back, and what ran on it goes on; see `…protocol.agent`.

The engine lives in a process or context that can die under the agent: killed, stuck, its device
lost. Requests stay with the agent. What was resident is loaded again and what ran is prefilled
again from its tokens, so clients see a pause and no other token than they would have seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from festina.config import Config
from festina.control.local import LocalScheduler
from festina.errors import AgentLostError, FestinaError
from festina.runtime.protocol.agent_effects import CheckEngine, Effect, GiveUp
from festina.runtime.protocol.agent_models import ModelTable
from festina.runtime.protocol.agent_power import Power, PowerState
from festina.runtime.protocol.agent_serving import Serving
from festina.runtime.protocol.agent_steps import Stepper
from festina.runtime.protocol.effects import Send

RETRY_S = 0.5
"""Pause before the second attempt to get an engine back; the next ones are twice as long each."""


class Recovery:
    """Notices losses of the engine, gets it back, and gives up after too many.

    Args:
        config: Bounds, and the interval of checks.
        leave: What to tell schedulers when the engine is given up.
        power: State of the engine.
        scheduler: Of the device.
        models: Which are resident.
        serving: Holds the requests.
        steps: Starts steps.
    """

    def __init__(
        self,
        config: Config,
        leave: Sequence[Send],
        power: PowerState,
        scheduler: LocalScheduler,
        models: ModelTable,
        serving: Serving,
        steps: Stepper,
    ) -> None:
        self._failures_max = config.agent.engine_failures_max
        self._window_s = config.agent.engine_window_s
        self._check_s = config.link.heartbeat_s
        self._leave = leave
        self._power = power
        self._scheduler = scheduler
        self._models = models
        self._serving = serving
        self._steps = steps
        self._failures: deque[float] = deque()
        self._retry_at = float("inf")
        self._check_at = 0.0
        self._checking = False

    @property
    def next_timer(self) -> float:
        """When `on_timer` has something to do."""
        if self._power.power is Power.LOST:
            return self._retry_at
        if self._checking or self._power.power is not Power.AWAKE:
            return float("inf")
        return self._check_at

    def on_timer(self, now: float) -> list[Effect]:
        """Try again to get a lost engine back; ask an idle one whether it lives."""
        if self._power.power is Power.LOST:
            return self._restore(now)
        if now < self.next_timer:
            return []
        self._check_at = now + self._check_s
        if self._scheduler.steps or self._models.changing:
            return []  # what is under way will tell
        self._checking = True
        return [CheckEngine()]

    def on_checked(self, error: FestinaError | None, now: float) -> list[Effect]:
        """The engine was asked whether it lives."""
        self._checking = False
        return [] if error is None else self.on_lost(error, now)

    def on_lost(self, error: FestinaError, now: float) -> list[Effect]:
        """Something ended because the engine is gone.

        What was asked of it before it is had again ends in the same way, and is reported before
        it is: that is no news.
        """
        self._scheduler.preempt(now)
        return self._recover(error, now) if self._power.power is Power.AWAKE else []

    def on_wake_failed(self, error: FestinaError, now: float) -> list[Effect]:
        """The engine cannot be had, parked or lost as it was."""
        return self._recover(error, now)

    def _recover(self, error: FestinaError, now: float) -> list[Effect]:
        self._power.lose()
        self._models.lose()
        self._failures.append(now)
        while self._failures[0] < now - self._window_s:
            self._failures.popleft()
        repeated = len(self._failures) - 1
        self._retry_at = now + (RETRY_S * 2.0 ** (repeated - 1) if repeated else 0.0)
        if len(self._failures) < self._failures_max:
            return self._restore(now)
        self._retry_at = float("inf")
        cause = AgentLostError(
            f"the agent gives its engine up after {len(self._failures)} losses: {error}",
            field="agent",
        )
        effects = self._serving.fail_all(cause, now)
        self._steps.stopped = True
        return [*effects, *self._leave, GiveUp(cause)]

    def _restore(self, now: float) -> list[Effect]:
        if now < self._retry_at:
            return []
        return [self._power.retry(now), *self._models.restore()]
