"""The consolidator without I/O: looks at the cluster, plans, and has plans carried out.

It holds nothing that the cluster does not: a new one sees who is parked, for how long, and who is
being emptied (which ends by itself, with the lease), and looks for `warmup_s` before it plans. One
plan at a time. Where there are two schedulers both are asked, and told the same: an order that is
passed on twice changes nothing. Its shell (`festina.runtime.consolidator`) and the simulator of
faults drive it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from festina.config import Config, ConsolidatorConfig
from festina.control.consolidation import (
    ConsolidationPlanner,
    Empty,
    GpuNow,
    ModelOnGpu,
    WakeUp,
)
from festina.control.demand import DemandWindow
from festina.errors import from_info
from festina.messages import (
    AgentInfo,
    AnyMessage,
    Cluster,
    Consolidation,
    ConsolidationEvent,
    Direct,
    Directed,
    GetCluster,
    Ping,
    Pong,
)
from festina.runtime.protocol.consolidator_runs import EmptyRun, Run, WakeRun
from festina.runtime.protocol.consolidator_savings import Savings
from festina.runtime.protocol.effects import Send
from festina.types import ModelState, ModelSummary

SCHEDULER = "scheduler"
EVENTS_MAX = 32


@dataclass(frozen=True, slots=True)
class _Event:
    at: float
    event: ConsolidationEvent


class ConsolidatorLogic:
    """One consolidator. Holds no socket and no clock.

    Args:
        config: Settings.
        planner: Decides.
        epoch: New, and larger, for every process.
    """

    def __init__(self, config: Config, planner: ConsolidationPlanner, epoch: int) -> None:
        self._settings: ConsolidatorConfig = config.consolidator
        self._silent_ms = config.link.heartbeat_s * config.link.missed_max * 500.0
        self._planner = planner
        self._epoch = epoch
        self._plan = epoch
        self._plans = 0
        self._aborts = 0
        self._window = DemandWindow(self._settings.window_s, planner.rules.clock.memory_ms / 1e3)
        self._savings = Savings(self._settings.dwell_s)
        self._runs: list[Run] = []
        self._events: deque[_Event] = deque(maxlen=EVENTS_MAX)
        self._fresh: list[ConsolidationEvent] = []
        self._residents = 0
        self._expired = False
        self._look_at = 0.0
        self._looking = False
        self._plan_at = float("-inf")

    @property
    def running(self) -> tuple[str, ...]:
        """GPUs that a plan is at work on."""
        return tuple(run.gpu for run in self._runs)

    def take_events(self) -> list[ConsolidationEvent]:
        """What has happened since the last call, for traces."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def next_timer(self, now: float) -> float:
        """When to call `on_timer`."""
        return max(now, self._look_at)

    def on_timer(self, now: float) -> list[Send]:
        """Look at the cluster, and tell what this one is about."""
        if now < self._look_at:
            return []
        self._look_at = now + self._settings.look_s
        self._looking = True
        return [_send(GetCluster()), _send(self.report(now))]

    def on_message(self, message: AnyMessage, now: float) -> list[Send]:
        """The scheduler says something."""
        match message:
            case Cluster() if self._looking:  # of two schedulers, the one that answers first
                self._looking = False
                return self._on_cluster(message, now)
            case Directed(plan, _, error) if error is not None and plan == self._plan:
                for run in self._runs:
                    if run.gpu == message.agent:
                        run.refused(str(from_info(error)))
            case Ping(nonce):
                return [_send(Pong(nonce, self._epoch))]
        return []

    def on_stop(self, now: float) -> list[Send]:
        """The process ends: whoever is being emptied takes requests again. Final."""
        orders = [order for run in self._runs for order in run.give_up("it was stopped").orders]
        self._runs = []
        return [*map(_send, orders), _send(self.report(now))]

    def report(self, now: float) -> Consolidation:
        """What it does and why."""
        return Consolidation(
            epoch=self._epoch,
            policy=self._settings.policy,
            state=self._state(),
            plans=self._plans,
            parks=self._savings.parks,
            wakes=self._savings.wakes,
            early_wakes=self._savings.early_wakes,
            aborts=self._aborts,
            expected_j=self._savings.expected_j(now),
            saved_j=self._savings.saved_j(),
            events=tuple(replace(one.event, ago_s=now - one.at) for one in self._events),
        )

    def _state(self) -> str:
        if not self._runs:
            warm = self._window.watched_s >= self._settings.warmup_s
            return "watching" if warm else "looking before it plans"
        names = ", ".join(run.gpu for run in self._runs)
        return f"{'waking' if isinstance(self._runs[0], WakeRun) else 'emptying'} {names}"

    # A look

    def _on_cluster(self, cluster: Cluster, now: float) -> list[Send]:
        self._window.observe(cluster, now)
        for event in self._savings.observe(cluster.agents, now):
            self._tell(event, now)
        residents = sum(len(agent.summary.models) for agent in cluster.agents)
        self._expired = self._expired or residents < self._residents
        self._residents = residents
        agents = {agent.agent: agent for agent in cluster.agents}
        if not self._runs and self._due(now):
            self._begin(agents, now)
        return [_send(order) for order in self._advance(agents, now)]

    def _due(self, now: float) -> bool:
        warm = self._window.watched_s >= self._settings.warmup_s
        return warm and now - self._plan_at >= self._settings.every_s

    def _begin(self, agents: dict[str, AgentInfo], now: float) -> None:
        self._plan_at = now
        growth_per_s = self._window.growth_per_s()
        gpus = [self._gpu(agent, growth_per_s) for agent in agents.values()]
        wake, empty = self._decide(gpus, growth_per_s)
        if wake is None and not empty:
            return
        self._plan += 1
        self._plans += 1
        settings = self._settings
        if wake is not None:
            epoch = agents[wake.gpu].epoch
            self._runs = [WakeRun(self._plan, wake, epoch, settings.patience_s, now)]
        else:
            self._runs = [
                EmptyRun(
                    self._plan,
                    one,
                    agents[one.gpu].epoch,
                    settings.lease_s,
                    settings.patience_s,
                    now,
                    [other.gpu for other in empty],
                )
                for one in empty
            ]
        for run in self._runs:
            self._tell(run.begin(), now)

    def _decide(
        self, gpus: Sequence[GpuNow], growth_per_s: float
    ) -> tuple[WakeUp | None, tuple[Empty, ...]]:
        if self._settings.policy == "paper":  # which plans when a keep-alive has expired
            due, self._expired = self._expired, False
            return None, self._planner.paper(gpus, self._window.demands()) if due else ()
        wanted = self._window.demands()
        wake = self._planner.wake(gpus, wanted)
        if wake is not None:
            return wake, ()
        return None, self._planner.empty(gpus, growth_per_s, wanted)

    def _advance(self, agents: dict[str, AgentInfo], now: float) -> list[Direct]:
        orders: list[Direct] = []
        for run in list(self._runs):
            progress = run.advance(agents, now)
            orders += progress.orders
            if progress.done is not None:
                self._runs.remove(run)
                self._end(run, progress.done, progress.why, agents, now)
        return orders

    def _end(self, run: Run, done: str, why: str, agents: dict[str, AgentInfo], now: float) -> None:
        if done == "aborted":
            self._aborts += 1
            self._tell(ConsolidationEvent(0.0, self._plan, "aborted", run.gpu, why), now)
        elif isinstance(run, EmptyRun):
            agent = agents[run.gpu]
            self._savings.parked(self._plan, agent, run.expected_j, run.valley_s, now)
            event = ConsolidationEvent(
                0.0, self._plan, "parked", run.gpu, "it is empty", run.expected_j
            )
            self._tell(event, now)
        else:
            self._tell(ConsolidationEvent(0.0, self._plan, "woken", run.gpu, "it is awake"), now)

    def _tell(self, event: ConsolidationEvent, now: float) -> None:
        self._events.append(_Event(now, event))
        self._fresh.append(event)

    # What the planner is told

    def _gpu(self, agent: AgentInfo, growth_per_s: float) -> GpuNow:
        gpu = agent.summary
        ahead = 1.0 + growth_per_s * self._settings.every_s
        clocks = (agent.clock_least_mhz, agent.clock_most_mhz) if agent.clock_most_mhz else ()
        heard = agent.silent_ms < self._silent_ms
        return GpuNow(
            name=agent.agent,
            kind=agent.device,
            sms_total=gpu.sms_total,
            clock_mhz=gpu.clock_target_mhz,
            clocks_mhz=clocks,
            memory_bytes=agent.memory_bytes,
            free_bytes=gpu.memory_free_bytes,
            parked=gpu.parked,
            open=heard and not gpu.parked and not gpu.draining and not gpu.moving,
            settled=heard and gpu.settled_s >= self._settings.dwell_s,
            loading=any(
                model.state in (ModelState.LOADING, ModelState.UNLOADING) for model in gpu.models
            ),
            models=tuple(self._model(agent.agent, model, ahead) for model in gpu.models),
        )

    def _model(self, agent: str, model: ModelSummary, ahead: float) -> ModelOnGpu:
        per_s, tokens = self._window.of_late(agent, model.model)
        return ModelOnGpu(
            model.model,
            model.running,
            model.waiting,
            model.context_tokens,
            model.tbt_ms,
            per_s * ahead,
            tokens,
        )


def _send(message: AnyMessage) -> Send:
    return Send(SCHEDULER, b"", message)
