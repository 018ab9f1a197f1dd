"""One agent without a GPU: what it says to the scheduler, by what it is told."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from festina.messages import (
    AnyMessage,
    Load,
    Ping,
    Pong,
    Register,
    Reregister,
    Summary,
    Unload,
    Welcome,
)
from festina.types import GpuSummary, ModelState, ModelSummary, Provenance

DEVICE, SMS = "H100-SXM5-80GB", 132
CLOCKS_MHZ = (345, 690, 990, 1200, 1410, 1980)
MEMORY_BYTES = 80 * 10**9
RESIDENT_BYTES = 17 * 10**9
RESIDENTS_MAX = 4
KV_TOKENS = 60_000
LOAD_S = 0.5
HEARTBEAT_S = 0.5
TURN_SHARE = 0.9
"""Of the time between summaries: turns come with a little jitter."""
CONTEXT_TOKENS = 400
"""Of a request, for the summary."""


@dataclass(slots=True)
class Resident:
    """One deployment here."""

    ready_at: float
    running: int = 0
    requests: int = 0


@dataclass(slots=True)
class FakeAgent:
    """Registers, loads what it is told, and counts requests until they end.

    Attributes:
        name: Its name.
        epoch: Its epoch, unique among all agents of a run: requests name it.
        endpoint: Where its clients connect.
        models: What it may host.
        residents: What it hosts, least recently used first.
        orders: `Load` orders that came.
        registers: Times it was asked to register.
    """

    name: str
    epoch: int
    endpoint: str
    models: tuple[str, ...]
    residents: dict[str, Resident] = field(default_factory=dict)
    orders: int = 0
    registers: int = 0
    _seq: int = 0
    _period_s: float = 0.0
    _summary_at: float = 0.0
    _ping_at: float = 0.0
    _tickets: list[int] = field(default_factory=list)
    _ends: list[tuple[float, str]] = field(default_factory=list)

    def register(self) -> Register:
        """Joins."""
        return Register(
            self.name, self.epoch, self.endpoint, DEVICE, SMS, CLOCKS_MHZ, MEMORY_BYTES, self.models
        )

    def on_message(self, message: object, now: float) -> list[AnyMessage]:
        """The scheduler says something; answers to it."""
        match message:
            case Load(model):
                self.orders += 1
                self._host(model, now)
            case Unload(model) if model in self.residents and not self.residents[model].running:
                del self.residents[model]
            case Reregister():
                self.registers += 1
                return [self.register()]
            case Welcome(_, summary_ms) | Pong(_, _, summary_ms):
                self._period_s = min(summary_ms / 1e3, HEARTBEAT_S)
        return []

    def tell(self, now: float) -> list[AnyMessage]:
        """Its turn has come: a summary unless the scheduler wants fewer, and heartbeats."""
        said: list[AnyMessage] = []
        if now >= self._ping_at:
            self._ping_at = now + HEARTBEAT_S
            said.append(Ping(self._seq))
        if now >= self._summary_at:
            self._summary_at = now + self._period_s * TURN_SHARE
            said.append(self.summary(now))
        return said

    def take(self, model: str, ticket: int, lasts_s: float, now: float) -> None:
        """A client's request comes."""
        resident = self._host(model, now)
        resident.running += 1
        resident.requests += 1
        self._tickets.append(ticket)
        heapq.heappush(self._ends, (now + lasts_s, model))

    def summary(self, now: float) -> Summary:
        """How it is."""
        while self._ends and self._ends[0][0] <= now:
            self.residents[heapq.heappop(self._ends)[1]].running -= 1
        self._seq += 1
        tickets, self._tickets = tuple(self._tickets), []
        running = len(self._ends)
        kv_total = KV_TOKENS * len(self.residents)
        gpu = GpuSummary(
            seq=self._seq, clock_mhz=1410, clock_target_mhz=1410, sms_total=SMS,
            sms_free=0 if running else SMS, free_in_ms=5.0 if running else 0.0,
            kv_tokens_total=kv_total, kv_tokens_free=kv_total - running * CONTEXT_TOKENS,
            memory_free_bytes=MEMORY_BYTES - RESIDENT_BYTES * len(self._used()),
            power_w=350.0 if running else 90.0, power_source=Provenance.MODELLED,
            energy_j=100.0 * now, parked=False, tickets=tickets,
            models=tuple(self._model(name, now) for name in self.residents),
        )  # fmt: skip
        return Summary(self.name, self.epoch, gpu)

    def _model(self, name: str, now: float) -> ModelSummary:
        resident = self.residents[name]
        return ModelSummary(
            name,
            ModelState.READY if now >= resident.ready_at else ModelState.LOADING,
            resident.running,
            context_tokens=resident.running * CONTEXT_TOKENS,
            tbt_ms=200.0 if resident.running else float("inf"),
            requests_total=resident.requests,
        )

    def _used(self) -> list[str]:
        return [name for name, resident in self.residents.items() if resident.running]

    def _host(self, model: str, now: float) -> Resident:
        """The resident, there or on its way; an idle one makes way for it."""
        resident = self.residents.pop(model, None)
        if resident is None:
            idle = [name for name, one in self.residents.items() if not one.running]
            if len(self.residents) >= RESIDENTS_MAX and idle:
                del self.residents[idle[0]]
            resident = Resident(now + LOAD_S)
        self.residents[model] = resident
        return resident
