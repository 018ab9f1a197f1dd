"""An agent as a process in virtual time: the real local scheduler, a simulated engine."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from festina.control.profiled import ProfiledStepTime
from festina.device import physics
from festina.device.simulated import SimulatedDevice
from festina.engine.base import Batch, LoadedModel, StepResult
from festina.engine.simulated import PREFIX, SimulatedEngine, SimulatedNoise
from festina.errors import DeviceError, EngineError, EngineLostError, FestinaError
from festina.messages import AnyMessage, Generate
from festina.runtime.agent_device import governor
from festina.runtime.outbox import reads_too_slowly
from festina.runtime.protocol.agent import AgentIdentity
from festina.runtime.protocol.agent_effects import (
    CheckEngine,
    Effect,
    GiveUp,
    LoadModel,
    ParkDevice,
    SetClock,
    StartStep,
    UnloadModel,
    WakeDevice,
)
from festina.runtime.protocol.agent_links import CLIENTS
from festina.runtime.protocol.agent_links import SCHEDULER as SCHEDULER_LINK
from festina.runtime.protocol.agent_links import STANDBY as STANDBY_LINK
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.move_effects import AGENTS as AGENTS_LINK
from festina.runtime.protocol.move_effects import (
    ConnectAgent,
    DisconnectAgent,
    EndMove,
    ExportBlocks,
    ImportBlocks,
)
from festina.simulator.faults.kv import SimulatedMover
from festina.simulator.faults.plan import SCHEDULER, STANDBY, STORM_S
from festina.simulator.faults.process import Process, Site

_LINKS = {SCHEDULER: SCHEDULER_LINK, STANDBY: STANDBY_LINK}
Outcome = TypeVar("Outcome")

_COPY_S = 0.001
_SLOW_S = 1.0
_FAILED_S = 0.001
_UNLOAD_S = 0.001
_PARK_S = 0.01


def endpoint_of(agent: str) -> str:
    """Where an agent listens."""
    return f"tcp://{agent}:1"


class AgentProcess(Process):
    """One process that drives one GPU; a successor under its name starts with an empty one.

    Attributes:
        epoch: Of this process.
        logic: What is under test.
    """

    def __init__(self, site: Site, name: str) -> None:
        super().__init__(site, name)
        self.epoch = next(site.epochs)
        self._rng = random.Random(f"engine/{site.plan.seed}/{name}/{self.epoch}")
        self._device = SimulatedDevice(physics.gpu_named(site.profiles.device), now=self.now)
        noise = SimulatedNoise(seed=self._rng.randrange(2**32))
        self._engine = SimulatedEngine(
            self._device, noise, clock=lambda: self.now, sleep=lambda _: None
        )
        self._mover = SimulatedMover(self._engine, site.memory, self.epoch)
        self._links: dict[str, bytes] = {}
        self._opened = 0
        self._engine_lost = False
        self._free_at = 0.0
        self._lost: list[tuple[bytes, FestinaError | None]] = []
        config, table = site.plan.config, site.profiles.agent_table()
        self._weights = {
            item.name: item.weights.removeprefix(PREFIX) for item in config.deployments
        }
        self.logic = site.parts.agent(
            AgentIdentity(name, self.epoch, endpoint_of(name), host=site.plan.hosts[name]),
            config,
            self._device,
            lambda loaded: ProfiledStepTime(table, self._weights[loaded.model]),
            governor(table, self._device, config.agent),
        )
        self._act(self.logic.on_start(self.now))

    def receive(self, source: str, identity: bytes, message: AnyMessage) -> None:
        """See `Process`."""
        if source in (SCHEDULER, STANDBY):
            self._act(self.logic.on_message(_LINKS[source], b"", message, self.now))
            return
        if identity.startswith(f"{self.name}/".encode()):  # over a link of its own
            endpoint = endpoint_of(source)
            if self._links.get(endpoint) != identity:
                self.tell_closed(source, identity)
                return
            self._act(self.logic.on_message(AGENTS_LINK, endpoint.encode(), message, self.now))
            return
        if isinstance(message, Generate):
            self.site.watch.agent_heard(self.name, self.epoch, identity, message)
        self._act(self.logic.on_message(CLIENTS, identity, message, self.now))

    def crash(self) -> None:
        """See `Process`."""
        super().crash()
        self._mover.close()
        self.site.watch.owns(self.name, set(), self.site.network.now)

    def timer(self) -> None:
        """See `Process`."""
        self._act(self.logic.on_timer(self.now))

    def closed(self, identity: bytes) -> None:
        """See `Process`; the next send to that client would fail."""
        self._act(self.logic.on_peer_lost(identity, None, self.now))

    def blocks_taken(self) -> int:
        """KV blocks that are in use."""
        return sum(lane.pool.total - lane.pool.free for lane in self.logic.scheduler.lanes.values())

    def _act(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect)
                case StartStep(step_id, batch):
                    result, duration_s = self._step(batch)
                    self._compute(duration_s, partial(self.logic.on_step_done, step_id, result))
                case LoadModel(deployment):
                    loaded, duration_s = self._load(effect)
                    report = partial(self.logic.on_loaded, deployment.name, loaded)
                    self._compute(duration_s, report)
                case UnloadModel(model):
                    gone = self._gone()
                    if gone is None:
                        self._engine.unload(model)
                    self._compute(_UNLOAD_S, partial(self.logic.on_unloaded, model, gone))
                case ExportBlocks():
                    outcome = self._copy(partial(self._mover.export, effect))
                    self._compute(_COPY_S, partial(self.logic.on_exported, effect, outcome))
                case ImportBlocks():
                    error = self._copy(partial(self._mover.take, effect))
                    self._compute(_COPY_S, partial(self.logic.on_imported, effect, error))
                case EndMove(key):
                    self._compute(0.0, partial(self._end_move, key))
                case ConnectAgent(endpoint):
                    self._opened += 1
                    self._links[endpoint] = f"{self.name}/{self.epoch}.{self._opened}".encode()
                case DisconnectAgent(endpoint):
                    del self._links[endpoint]
                case SetClock(clock_mhz):
                    self._device.set_clock_mhz(clock_mhz)
                case ParkDevice():
                    self._compute(_PARK_S, self.logic.on_parked)
                case WakeDevice():
                    self._engine.clear()
                    self._engine_lost = False
                    wake_s = self._device.gpu.wake_ms / 1e3
                    self._compute(wake_s, partial(self.logic.on_woken, None))
                case CheckEngine():
                    report = partial(self.logic.on_checked, self._gone())
                    self._compute(_UNLOAD_S, report)
                case GiveUp(cause):
                    raise cause  # the plan's bound is out of reach
        lost, self._lost = self._lost, []
        for peer, error in lost:
            self._act(self.logic.on_peer_lost(peer, error, self.now))
        self._measure()
        self.settle(self.logic.next_timer())

    def _send(self, send: Send) -> None:
        site, now = self.site, self.site.network.now
        for scheduler, link in _LINKS.items():
            if send.link == link:
                site.network.send(self.name, scheduler, self.name.encode(), send.message)
                return
        if send.link == AGENTS_LINK:
            endpoint = send.peer.decode()
            if endpoint in self._links:
                agent = endpoint.removeprefix("tcp://").partition(":")[0]
                site.network.send(self.name, agent, self._links[endpoint], send.message)
            return
        site.watch.agent_sent(self.name, self.epoch, send.peer, send.message, now)
        client = send.peer.partition(b"/")[0].decode()
        if not site.network.send(self.name, client, send.peer, send.message):
            patience_s = site.plan.config.agent.client_timeout_s
            self._lost.append((send.peer, reads_too_slowly(patience_s)))

    def _compute(self, duration_s: float, report: Callable[[float], list[Effect]]) -> None:
        """One compute thread does one thing after the other."""
        start = max(self._free_at, self.site.network.now)
        self._free_at = start + duration_s
        self.later(self._free_at - self.site.network.now, lambda: self._act(report(self.now)))

    def _copy(self, copy: Callable[[], Outcome]) -> Outcome | FestinaError:
        """What became of a copy of blocks."""
        if gone := self._gone():
            return gone
        if self._happens(self.site.plan.engine.step, "copy failed"):
            return EngineError("a copy failed")
        try:
            return copy()
        except EngineError as error:
            return error

    def _end_move(self, key: str, now: float) -> list[Effect]:  # noqa: ARG002
        self._mover.end(key)
        return []

    def _gone(self) -> EngineLostError | None:
        """What an engine says that is gone."""
        return EngineLostError("the engine is gone") if self._engine_lost else None

    def _step(self, batch: Batch) -> tuple[StepResult | FestinaError, float]:
        faults = self.site.plan.engine
        self._engine_lost = self._engine_lost or self._happens(faults.lost, "engine lost")
        if gone := self._gone():
            return gone, _FAILED_S
        if self._happens(faults.step, "step failed"):
            return EngineError("a step failed"), _FAILED_S
        try:
            result = self._engine.step(batch)
        except EngineError as error:
            return error, _FAILED_S
        slow_s = _SLOW_S if self._happens(faults.slow, "step slow") else 0.0
        return result, result.latency_ms / 1e3 + slow_s

    def _load(self, load: LoadModel) -> tuple[LoadedModel | FestinaError, float]:
        decoder = physics.model_named(self._weights[load.deployment.name])
        duration_s = physics.load_ms(self._device.gpu, decoder.resident_bytes) / 1e3
        if gone := self._gone():
            return gone, _FAILED_S
        if self._happens(self.site.plan.engine.load, "load failed"):
            return DeviceError("a load failed"), duration_s
        try:
            return self._engine.load(load.deployment), duration_s
        except DeviceError as error:
            return error, duration_s

    def _happens(self, probability: float, kind: str) -> bool:
        now = self.site.network.now
        if now >= STORM_S or self._rng.random() >= probability:
            return False
        self.site.journal.fault(now, kind, self.name)
        return True

    def _measure(self) -> None:
        """Requests that have never run are within the bound of the queue (promise 4)."""
        queued = sum(
            request.sequence is None
            or not (request.sequence.blocks or request.sequence.preemptions)
            for request in self.logic.requests
        )
        owned = {
            (request.request_id, request.message.ticket)
            for request in self.logic.requests
            if not request.peer.startswith(b"crowd/")
        }
        self.site.watch.owns(self.name, owned, self.site.network.now)
        bound, now = self.site.plan.config.agent.waiting_max, self.site.network.now
        self.site.journal.use("requests queued", queued, bound, now, self.name)
