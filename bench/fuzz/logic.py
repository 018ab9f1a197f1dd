"""Targets that hold the state of a process: scheduler, agent and client take damaged frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from bench.fuzz.frames import wire_corpus
from bench.fuzz.target import Target
from tests.support.no_gpu import (
    CONFIG,
    ENDPOINT,
    JOB,
    NoGpu,
    NoGpuAgent,
    loaded_engine,
    read,
)

from festina.errors import ProtocolError
from festina.messages import encode
from festina.runtime.protocol.client import ClientLogic
from festina.runtime.protocol.client_effects import ClientLimits
from festina.runtime.protocol.scheduler import SchedulerLogic


def scheduler(_: Path) -> Target:
    """Two peers that say anything; the timer runs on."""

    def start() -> Callable[[bytes], None]:
        logic = SchedulerLogic(CONFIG, NoGpu(), 1)
        clock = _Clock(0.25)

        def take(frame: bytes) -> None:
            now = clock.tick()
            message = read(frame)
            for send in logic.on_message(b"ab"[len(frame) & 1 :][:1], message, now):
                encode(send.message)
            logic.on_timer(now)
            if isinstance(message, ProtocolError):
                raise message

        return take

    return Target(wire_corpus(), start, intact=8)


def agent(_: Path) -> Target:
    """Clients, other agents and the scheduler say anything; what the agent asks for is done."""
    engine, model = loaded_engine()

    def start() -> Callable[[bytes], None]:
        one = NoGpuAgent(engine, model)

        def take(frame: bytes) -> None:
            link = "scheduler" if len(frame) % 3 == 0 else "clients"
            message = read(frame)
            one.take(link, b"" if link == "scheduler" else b"a", message, 0.05)
            if isinstance(message, ProtocolError):
                raise message

        return take

    return Target(wire_corpus(), start, intact=8)


def client(_: Path) -> Target:
    """Scheduler and agent say anything to a client with a request on its way."""

    def start() -> Callable[[bytes], None]:
        logic = ClientLogic(CONFIG.link, ClientLimits(), Random(0))
        clock = _Clock(0.25)

        def take(frame: bytes) -> None:
            now = clock.tick()
            if logic.in_flight == 0:
                logic.start(JOB, now)
            message = read(frame)
            peer = ENDPOINT.encode() if len(frame) & 1 else b""
            logic.on_message(peer, message, now)
            logic.on_timer(now)
            if isinstance(message, ProtocolError):
                raise message

        return take

    return Target(wire_corpus(), start, intact=8)


class _Clock:
    """Seconds that go on with each input."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._now = 0.0

    def tick(self) -> float:
        self._now += self._step_s
        return self._now
