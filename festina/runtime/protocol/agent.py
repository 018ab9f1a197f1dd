"""The agent without I/O: requests in, steps out, tokens back (DESIGN sections 1, 4.2, 5).

Its shell (`festina.runtime.agent`) and the simulator drive it alike: they tell it what arrived and
which step ended, and carry out the effects it returns, in order. Every `on_…` method may be called
at any time with a `now` that never decreases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from festina.account import ACCOUNT_S, Account
from festina.config import Config
from festina.control.clock_governor import DeviceClock
from festina.control.energy import EnergyLedger
from festina.control.lane import Lane
from festina.control.local import LocalScheduler
from festina.control.step_time import StepTime
from festina.device.base import Device
from festina.engine.base import BLOCK_TOKENS, LoadedModel, StepResult
from festina.engine.blocks import BlockManager
from festina.errors import AgentLostError, EngineLostError, FestinaError, ProtocolError
from festina.messages import (
    Abandon,
    AnyMessage,
    Attach,
    Cancel,
    Drain,
    Failed,
    Follow,
    Generate,
    Handover,
    KvBlocks,
    Leave,
    Load,
    Migrate,
    Offer,
    Park,
    Ping,
    Pong,
    Probe,
    Register,
    Summary,
    Unload,
    Wake,
)
from festina.runtime.protocol.agent_account import account_of
from festina.runtime.protocol.agent_effects import Effect, LoadModel, UnloadModel
from festina.runtime.protocol.agent_identity import AgentIdentity as AgentIdentity
from festina.runtime.protocol.agent_links import CLIENTS, SchedulerLinks
from festina.runtime.protocol.agent_models import ModelTable, Residency
from festina.runtime.protocol.agent_moves import Moves
from festina.runtime.protocol.agent_power import Power, PowerState
from festina.runtime.protocol.agent_recovery import Recovery
from festina.runtime.protocol.agent_requests import RequestBook
from festina.runtime.protocol.agent_serving import Serving
from festina.runtime.protocol.agent_steps import Stepper
from festina.runtime.protocol.agent_summary import gpu_summary
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.local_rules import local_rules
from festina.runtime.protocol.move_effects import AGENTS, ExportBlocks, Exported, ImportBlocks
from festina.types import ModelState

MEMORY = "memory"
"""Field of the error of a load for which the device has too little memory left."""


@dataclass(slots=True)
class Preloads:
    """What is to be resident from the start.

    Attributes:
        waiting: Deployments that are on their way.
        error: Why one of them cannot be had; it is tried again when a request needs it.
    """

    waiting: set[str] = field(default_factory=set)
    error: FestinaError | None = None

    @property
    def settled(self) -> bool:
        """Whether all are there, or one has failed."""
        return self.error is not None or not self.waiting


class AgentLogic:
    """One agent. Owns its requests, sequences and KV block tables; not thread-safe.

    Args:
        identity: Who it is.
        config: Settings; `config.deployments` is what it may host.
        device: Read for sensors and told of finished steps; clocks are set by effect only.
        step_time: Makes the predictor of a model's steps on this device.
        clocks: Chooses the device's clock; None leaves it alone.
        loads_beside: The engine can load a model while steps of others run.
    """

    def __init__(
        self,
        identity: AgentIdentity,
        config: Config,
        device: Device,
        step_time: Callable[[LoadedModel], StepTime],
        clocks: DeviceClock | None = None,
        *,
        loads_beside: bool = False,
    ) -> None:
        self._identity = identity
        self._config = config
        self._device = device
        self._step_time = step_time
        agent = config.agent
        rules = local_rules(agent, device.kind)
        self._scheduler = LocalScheduler(agent.policy, rules, device.partitions[0])
        self._power = PowerState(device)
        self._models = ModelTable(config.deployments, self._power)
        self._serving = Serving(config, identity.epoch, device, self._scheduler, self._models)
        self._steps = Stepper(
            self._scheduler,
            self._models,
            device,
            clocks,
            self._serving,
            loads_beside=loads_beside,
        )
        standby = bool(config.scheduler.standby_endpoint)
        self._links = SchedulerLinks(self._register(), config.link, standby=standby)
        leave = Leave(identity.agent, identity.epoch)
        self._leave = self._links.tell_all(leave)
        self._recovery = Recovery(
            config,
            self._leave,
            self._power,
            self._scheduler,
            self._models,
            self._serving,
            self._steps,
        )
        self._moves = Moves(identity, config, device, self._scheduler, self._models, self._serving)
        self._preloads = Preloads()
        self._summaries = 0
        self._summary_at = 0.0
        self._account_at = 0.0

    @property
    def requests(self) -> RequestBook:
        """Requests that have not ended. Read only."""
        return self._serving.requests

    @property
    def scheduler(self) -> LocalScheduler:
        """The scheduler of its device. Read only."""
        return self._scheduler

    @property
    def models(self) -> ModelTable:
        """Which deployments are resident. Read only."""
        return self._models

    @property
    def ledger(self) -> EnergyLedger[int]:
        """Who has used how many joules. Read only."""
        return self._serving.ledger

    @property
    def moves(self) -> Moves:
        """Requests on their way from and to other agents. Read only."""
        return self._moves

    @property
    def power(self) -> PowerState:
        """Whether its device is being emptied or parked. Read only."""
        return self._power

    @property
    def preloads(self) -> Preloads:
        """What was to be resident from the start. Read only."""
        return self._preloads

    # What the shell tells it

    def on_start(self, now: float) -> list[Effect]:
        """Join the scheduler and load what is to be resident from the start."""
        self._serving.start(now)
        self._power.start(now)
        effects: list[Effect] = list(self._links.on_timer(now))
        for residency in self._models:
            if residency.deployment.preload:
                self._preloads.waiting.add(residency.deployment.name)
                effects += self._models.want(residency.deployment.name, now)
        return effects

    def on_message(
        self, link: str, peer: bytes, message: AnyMessage | ProtocolError, now: float
    ) -> list[Effect]:
        """A frame arrived on `link` from `peer`; an error if it was none of ours."""
        effects: list[Effect] = []
        if link in self._links:
            if not isinstance(message, ProtocolError):
                effects += self._on_scheduler(link, message, now)
        elif link == AGENTS:
            if not isinstance(message, ProtocolError):
                effects += self._moves.on_agent(peer.decode(), message, now)
        else:
            self._serving.clients.heard(peer, now)
            effects += self._on_client(peer, message, now)
        return effects + self._pump(now)

    def on_peer_lost(self, peer: bytes, error: FestinaError | None, now: float) -> list[Effect]:
        """A client cannot be reached (None), or is cut off with an error: its requests end."""
        self._moves.on_peer_lost(peer)
        return self._serving.leave(peer, error, now) + self._pump(now)

    def on_step_done(
        self, step_id: int, result: StepResult | FestinaError, now: float
    ) -> list[Effect]:
        """A step has ended, well or not."""
        effects = self._steps.settle(step_id, result, now)
        if isinstance(result, EngineLostError):
            effects += self._lost(result, now)
        return effects + self._pump(now)

    def on_loaded(self, model: str, loaded: LoadedModel | FestinaError, now: float) -> list[Effect]:
        """A load has ended; requests that waited for it are queued, or end with its error."""
        if isinstance(loaded, EngineLostError):  # it will be loaded again with the others
            return self._lost(loaded, now) + self._pump(now)
        residency = self._models[model]
        if isinstance(loaded, FestinaError) and loaded.field == MEMORY:
            victim = self._models.make_way()
            if victim is not None:
                retry = LoadModel(residency.deployment)
                return [self._unload(victim), retry, *self._pump(now)]
        preload = model in self._preloads.waiting
        self._preloads.waiting.discard(model)
        if isinstance(loaded, FestinaError):
            residency.state = ModelState.ABSENT
            residency.loaded = None
            if preload and self._preloads.error is None:
                self._preloads.error = loaded
            effects = self._moves.on_model_lost(model, now)
            effects += self._serving.fail_model(model, loaded, now)
            if model in self._scheduler.lanes:  # it was lost, and does not come back
                self._scheduler.remove_model(model)
            return effects + self._pump(now)
        residency.state = ModelState.READY
        residency.loaded = loaded
        residency.idle_since = now
        if model not in self._scheduler.lanes:  # else it was lost, and what ran there goes on
            pool = BlockManager(loaded.kv_blocks)
            lengths = self._serving.lengths[model]
            step_time = self._step_time(loaded)
            self._scheduler.add_model(Lane(model, pool, BLOCK_TOKENS, step_time, lengths))
        return self._serving.queue_waiting(residency, loaded, now) + self._pump(now)

    def on_unloaded(self, model: str, error: FestinaError | None, now: float) -> list[Effect]:
        """An unload has ended; whoever has come meanwhile gets the model loaded again."""
        residency = self._models[model]
        residency.state = ModelState.ABSENT
        residency.loaded = None
        effects: list[Effect] = []
        if isinstance(error, EngineLostError):
            effects += self._lost(error, now)
        elif error is not None:
            return self._serving.fail_waiting(model, error, now) + self._pump(now)
        if residency.requests:
            effects += self._models.want(model, now)
        return effects + self._pump(now)

    def on_exported(
        self, effect: ExportBlocks, outcome: Exported | FestinaError, now: float
    ) -> list[Effect]:
        """KV blocks were read, or could not be."""
        effects = self._moves.on_exported(effect, outcome, now)
        if isinstance(outcome, EngineLostError):
            effects += self._lost(outcome, now)
        return effects + self._pump(now)

    def on_imported(
        self, effect: ImportBlocks, error: FestinaError | None, now: float
    ) -> list[Effect]:
        """KV blocks are in the pool, or why not."""
        effects = self._moves.on_imported(effect, error, now)
        if isinstance(error, EngineLostError):
            effects += self._lost(error, now)
        return effects + self._pump(now)

    def on_parked(self, now: float) -> list[Effect]:
        """The device's context is gone."""
        self._power.parked_now(now)
        return self._pump(now)

    def on_woken(self, error: FestinaError | None, now: float) -> list[Effect]:
        """The device's context is there and nothing in it, or cannot be had."""
        if error is not None:
            return self._recovery.on_wake_failed(error, now) + self._pump(now)
        self._power.woken(now)
        return self._pump(now)

    def _lost(self, error: FestinaError, now: float) -> list[Effect]:
        return self._moves.on_engine_lost(now) + self._recovery.on_lost(error, now)

    def on_checked(self, error: FestinaError | None, now: float) -> list[Effect]:
        """The engine was asked whether it lives."""
        effects = self._moves.on_engine_lost(now) if error is not None else []
        return effects + self._recovery.on_checked(error, now) + self._pump(now)

    def on_timer(self, now: float) -> list[Effect]:
        """Time has passed `next_timer`; calling it sooner does no harm."""
        effects: list[Effect] = list(self._links.on_timer(now))
        pings, gone = self._serving.clients.on_timer(now)
        effects += pings
        for peer in gone:
            effects += self._serving.leave(peer, None, now)
        effects += self._moves.on_timer(now)
        effects += self._unload_expired(now)
        effects += self._recovery.on_timer(now)
        if self._links.welcome and now >= self._summary_at:
            effects += self._summary(now)
        return effects + self._pump(now)

    def next_timer(self) -> float:
        """When `on_timer` is wanted next."""
        return min(
            self._links.next_timer,
            self._serving.clients.next_timer,
            self._models.next_timer(),
            self._power.next_timer,
            self._recovery.next_timer,
            self._moves.next_timer,
            self._summary_at if self._links.welcome else float("inf"),
            self._steps.wait_until,
        )

    def on_stop(self, now: float) -> list[Effect]:
        """The agent ends: every request ends with an error, the scheduler is told. Final."""
        error = AgentLostError("the agent is shutting down", field="agent")
        effects = self._moves.stop() + self._serving.fail_all(error, now)
        self._steps.stopped = True
        return [*effects, *self._leave]

    # The device

    def _pump(self, now: float) -> list[Effect]:
        """Park if that is wanted and nothing is left, and start what should run now."""
        awake = self._power.power is Power.AWAKE
        self._steps.savings.advance(now, self._device.run_clock_mhz(), awake=awake)
        moves = self._moves.advance(now)
        return [*moves, *self._park(now), *self._steps.pump(now)]

    def _park(self, now: float) -> list[Effect]:
        self._power.lapse(now)
        if not self._power.park_wanted or self._power.power is not Power.AWAKE:
            return []
        if len(self._serving.requests):
            return []
        self._models.leave()
        effects = self._unload_expired(now)
        if self._models.empty:
            effects.append(self._power.begin_park())
        return effects

    def _unload_expired(self, now: float) -> list[Effect]:
        return [self._unload(residency) for residency in self._models.expired(now)]

    def _unload(self, residency: Residency) -> UnloadModel:
        self._scheduler.remove_model(residency.deployment.name)
        return self._models.unload(residency)

    # Messages

    def _on_scheduler(self, link: str, message: AnyMessage, now: float) -> list[Effect]:
        if isinstance(message, Load) and message.model in self._serving.lengths:
            return list(self._models.want(message.model, now))
        if isinstance(message, Unload) and message.model in self._serving.lengths:
            self._models[message.model].draining = True
            return []
        match message:
            case Migrate():
                return self._moves.order(message, now)
            case Drain(lease_ms):
                self._power.drain(lease_ms, now)
            case Park():
                self._power.park()
            case Wake():
                return [*self._power.wake(now)]
        answers, joined = self._links.on_message(link, message, now)
        if not joined:
            return list(answers)
        self._account_at = now  # a new scheduler should know at once all that the last one knew
        return [*answers, *self._summary(now)]

    def _on_client(
        self, peer: bytes, message: AnyMessage | ProtocolError, now: float
    ) -> list[Effect]:
        moved = (
            [] if isinstance(message, ProtocolError) else self._moves.on_client(peer, message, now)
        )
        match message:
            case Offer() | KvBlocks() | Follow() | Handover() | Abandon() | Attach():
                return moved
            case Generate() | Probe() if moved:
                return moved
            case Generate():
                return self._serving.on_generate(peer, message, now)
            case Cancel():
                return moved + self._serving.cancel(peer, message.request_id, now)
            case Probe():
                return [self._serving.on_probe(peer, message)]
            case Ping():
                return [Send(CLIENTS, peer, Pong(message.nonce, self._identity.epoch))]
            case Pong():
                return []
            case ProtocolError():
                return [Send(CLIENTS, peer, Failed("", message.info()))]
        error = ProtocolError(
            f"an agent does not take a {type(message).__name__} from a client",
            field="frame",
            expected="Generate, Attach, Cancel, Probe, Ping or Pong",
        )
        return [Send(CLIENTS, peer, Failed("", error.info()))]

    # Scheduler

    def _register(self) -> Register:
        return Register(
            agent=self._identity.agent,
            epoch=self._identity.epoch,
            endpoint=self._identity.endpoint,
            device=self._device.kind,
            sms_total=self._device.sms_total,
            clocks_mhz=self._device.clocks_mhz,
            memory_bytes=self._device.memory_bytes,
            models=tuple(item.name for item in self._config.deployments),
            public_key=self._identity.public_key,
        )

    def _summary(self, now: float) -> list[Send]:
        period_s = 1.0 / self._config.agent.summary_hz
        self._summary_at = now + max(period_s, self._links.summary_s)
        self._summaries += 1
        gpu = gpu_summary(
            self._summaries,
            self._device,
            self._scheduler,
            self._models,
            self._power,
            self._serving.take_tickets(),
            self._steps.clock_target_mhz,
            now,
        )
        gpu = replace(gpu, moving=self._moves.moving)
        identity, account = self._identity, self._account(now)
        return self._links.tell(Summary(identity.agent, identity.epoch, gpu, account))

    def _account(self, now: float) -> Account | None:
        """What has added up, if it is time to tell that."""
        if now < self._account_at:
            return None
        self._account_at = now + ACCOUNT_S
        ledger = self._serving.ledger
        ledger.settle(self._device.energy_j(now).value)
        saved_j = self._steps.savings.saved_j
        return account_of(
            ledger.idle_j, ledger.by_group(), self._moves.tally, self._power.wakes, saved_j
        )
