"""The agent process: a thin shell around `AgentLogic`. Receive, decide, act.

The main thread owns the sockets, the logic and the device; one compute thread owns the engine, or
one that computes and one that loads where the engine allows it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from threading import Event
from typing import cast

import zmq

from festina.config import Config
from festina.engine.base import LoadedModel, StepResult
from festina.errors import FestinaError
from festina.runtime import agent_device
from festina.runtime.agent_kv import KvMover
from festina.runtime.agent_links import AgentLinks
from festina.runtime.agent_watch import AgentWatch
from festina.runtime.compute import ComputeThread
from festina.runtime.failpoints import failpoint
from festina.runtime.outbox import Outbox
from festina.runtime.protocol.agent import AgentIdentity, AgentLogic
from festina.runtime.protocol.agent_effects import (
    CheckEngine,
    Effect,
    EngineEffect,
    GiveUp,
    LoadModel,
    ParkDevice,
    SetClock,
    StartStep,
    UnloadModel,
    WakeDevice,
)
from festina.runtime.protocol.agent_links import CLIENTS, SCHEDULER, STANDBY
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.move_effects import (
    AGENTS,
    ConnectAgent,
    DisconnectAgent,
    EndMove,
    ExportBlocks,
    Exported,
    ImportBlocks,
)
from festina.runtime.protocol.request_notes import RequestNote
from festina.runtime.shared_memory import host_id
from festina.runtime.transport import Link, advertised, connect_scheduler, wait
from festina.security.guard import admitting, build_guard

RECEIVE_MAX = 256
"""Messages taken from one socket before the others get their turn."""

SLEEP_MAX_S = 0.1
"""Longest time until `stop` is looked at."""

COMPUTE = 0
"""The thread of steps and copies; the last one changes what is resident, and may be the same."""


def run(
    config: Config,
    name: str,
    gpu: str,
    scheduler_endpoint: str,
    announce: Callable[[str], None],
    stop: Event,
    preloaded: Callable[[FestinaError | None], None] = lambda _: None,
) -> None:
    """Serve on one device until `stop` is set. Blocks; call it on the main thread of a process.

    Args:
        config: Settings.
        name: Agent name.
        gpu: Device: `cpu`, `sim`, `sim:KIND` or `cuda:ORDINAL`.
        scheduler_endpoint: Where the scheduler listens; it may come later. Its standby is in the
            settings.
        announce: Called once with the endpoint for clients, when it accepts them.
        stop: Ends the agent: requests fail with `agent_lost`, the scheduler is told, all is freed.
        preloaded: Called once when all that is to be resident from the start is, or with the reason
            why something is not. The agent serves on either way.

    Raises:
        ConfigError: Unknown device, or an endpoint that is not allowed or in use.
        DeviceError: The device is absent.
        AgentLostError: Its engine was lost too often, or cannot be had.
    """
    now = time.monotonic()
    guard = build_guard(config.security, binds=True)
    built = agent_device.build(gpu, config, now)
    try:
        with (
            zmq.Context() as context,
            admitting(guard, context),
            Link.bind(context, config.agent.endpoint, config.link, guard) as clients,
            _connect_schedulers(context, scheduler_endpoint, config) as schedulers,
            _engine_threads(loads_beside=built.loads_beside) as threads,
            closing(built),
            closing(AgentWatch(name, built.device.kind, config.trace)) as watch,
        ):
            epoch = time.time_ns() // 1_000_000  # grows from one process to the next
            reached_at = advertised(clients.endpoint, config.agent.advertise)
            public_key = "" if guard is None else guard.public_key
            identity = AgentIdentity(name, epoch, reached_at, public_key, host_id())
            logic = AgentLogic(
                identity,
                config,
                built.device,
                built.step_time,
                built.clocks,
                loads_beside=built.loads_beside,
            )
            agents = AgentLinks(context, config.link, guard)
            shell = _Shell(logic, built, threads, clients, schedulers, agents, watch, config)
            watch.serving(reached_at, built.device.kind)
            announce(reached_at)
            try:
                shell.serve(stop, preloaded)
            finally:
                agents.close()
    finally:
        built.device.close()


@contextmanager
def _engine_threads(*, loads_beside: bool) -> Iterator[Sequence[ComputeThread[EngineEffect]]]:
    """What calls the engine: the first one computes, the last one loads (see `COMPUTE`)."""
    with ExitStack() as stack:
        count = 2 if loads_beside else 1
        yield [stack.enter_context(ComputeThread[EngineEffect]()) for _ in range(count)]


@contextmanager
def _connect_schedulers(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, config: Config
) -> Iterator[dict[str, Link]]:
    """Links to the scheduler and, where there is one, to its standby."""
    with ExitStack() as stack:
        links = {SCHEDULER: stack.enter_context(connect_scheduler(context, endpoint, config))}
        standby = config.scheduler.standby_endpoint
        if standby:
            links[STANDBY] = stack.enter_context(connect_scheduler(context, standby, config))
        yield links


class _Shell:
    """The loop: waits for sockets, the compute thread and timers; carries out effects."""

    def __init__(
        self,
        logic: AgentLogic,
        built: agent_device.Built,
        threads: Sequence[ComputeThread[EngineEffect]],
        clients: Link,
        schedulers: Mapping[str, Link],
        agents: AgentLinks,
        watch: AgentWatch,
        config: Config,
    ) -> None:
        self._logic = logic
        self._built = built
        self._device = built.device
        self._engine = built.engine
        self._threads = threads
        self._clients = clients
        self._schedulers = schedulers
        self._agents = agents
        self._watch = watch
        self._kv = KvMover(built.engine)
        self._outbox = Outbox(clients, config.agent.client_timeout_s)
        self._failure: FestinaError | None = None

    def serve(self, stop: Event, preloaded: Callable[[FestinaError | None], None]) -> None:
        """Until `stop` is set, or the engine cannot be had.

        Raises:
            FestinaError: Why it cannot.
        """
        self._act(self._logic.on_start(time.monotonic()))
        told = False
        while not stop.is_set() and self._failure is None:
            if not told and self._logic.preloads.settled:
                preloaded(self._logic.preloads.error)
                told = True
            self._wait()
            for number, thread in enumerate(self._threads):
                for job, future in thread.collect():
                    self._act(self._settle(number, job, future))
            self._receive(CLIENTS, self._clients)
            for name, link in self._schedulers.items():
                self._receive(name, link)
            for endpoint, (_, message) in self._agents.receive(RECEIVE_MAX):
                peer, now = endpoint.encode(), time.monotonic()
                self._act(self._logic.on_message(AGENTS, peer, message, now))
            now = time.monotonic()
            if now >= self._logic.next_timer():
                self._act(self._logic.on_timer(now))
            self._outbox.retry(now)
            for peer, error in self._outbox.lost():
                self._act(self._logic.on_peer_lost(peer, error, now))
        self._act(self._logic.on_stop(time.monotonic()))
        self._outbox.retry(time.monotonic())
        if self._failure is not None:
            raise self._failure

    def _wait(self) -> None:
        seconds = min(self._logic.next_timer() - time.monotonic(), SLEEP_MAX_S)
        milliseconds = max(0, math.ceil(seconds * 1e3))  # waking early would only spin
        sources: list[Link | int] = [self._clients, *self._schedulers.values(), *self._agents.links]
        wait([*sources, *(thread.wake_fd for thread in self._threads)], milliseconds / 1e3)

    def _receive(self, name: str, link: Link) -> None:
        for peer, message in link.receive(RECEIVE_MAX):
            failpoint("agent.receive", message)
            self._act(self._logic.on_message(name, peer, message, time.monotonic()))

    def _act(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(link=link, peer=peer, message=message):
                    failpoint("agent.send", message)
                    if link in self._schedulers:
                        told = self._watch.sent(message, time.monotonic())
                        self._schedulers[link].send(told)  # periodic; may be lost
                    elif link == AGENTS:
                        self._agents.send(peer.decode(), message)
                    else:
                        self._outbox.send(peer, message, time.monotonic())
                case RequestNote():
                    self._watch.note(effect, time.monotonic())
                case StartStep():
                    self._submit(effect, partial(self._engine.step, effect.batch))
                case LoadModel():
                    self._change(effect, partial(self._engine.load, effect.deployment))
                case UnloadModel():
                    self._change(effect, partial(self._engine.unload, effect.model))
                case ExportBlocks():
                    self._submit(effect, partial(self._kv.export, effect))
                case ImportBlocks():
                    self._submit(effect, partial(self._kv.take, effect))
                case EndMove(key):
                    self._submit(effect, partial(self._kv.end, key))
                case ConnectAgent(endpoint, server_key):
                    self._agents.connect(endpoint, server_key)
                case DisconnectAgent(endpoint):
                    self._agents.disconnect(endpoint)
                case SetClock(clock_mhz=clock_mhz):
                    self._device.set_clock_mhz(clock_mhz)
                case ParkDevice():
                    self._change(effect, self._built.park)
                case WakeDevice():
                    self._change(effect, self._built.wake)
                case CheckEngine():
                    self._change(effect, self._built.check)
                case GiveUp(error=error):
                    self._failure = error

    def _submit(
        self, effect: EngineEffect, job: Callable[[], object], thread: int = COMPUTE
    ) -> None:
        self._watch.begun(thread, time.monotonic())
        self._threads[thread].submit(effect, job)

    def _change(self, effect: EngineEffect, job: Callable[[], object]) -> None:
        """As `_submit`, for what changes what is resident."""
        self._submit(effect, job, len(self._threads) - 1)

    def _settle(self, thread: int, job: EngineEffect, future: Future[object]) -> list[Effect]:
        """Report a job's outcome. Anything but a `FestinaError` is a bug and ends the process."""
        now = time.monotonic()
        error = future.exception()
        if error is not None and not isinstance(error, FestinaError):
            raise error
        outcome = error if error is not None else future.result()
        self._watch.done(thread, job, outcome, now)
        match job:
            case StartStep():
                step = cast("StepResult | FestinaError", outcome)
                return self._logic.on_step_done(job.step_id, step, now)
            case LoadModel():
                loaded = cast("LoadedModel | FestinaError", outcome)
                return self._logic.on_loaded(job.deployment.name, loaded, now)
            case UnloadModel():
                return self._logic.on_unloaded(job.model, cast("FestinaError | None", outcome), now)
            case ExportBlocks():
                return self._logic.on_exported(job, cast("Exported | FestinaError", outcome), now)
            case ImportBlocks():
                return self._logic.on_imported(job, cast("FestinaError | None", outcome), now)
            case EndMove():
                return []
            case ParkDevice():
                return self._logic.on_parked(now)
            case WakeDevice():
                return self._logic.on_woken(cast("FestinaError | None", outcome), now)
            case CheckEngine():
                return self._logic.on_checked(cast("FestinaError | None", outcome), now)
