"""What one seed does: a cluster, what is asked of it, and what goes wrong when."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from festina.config import (
    AgentConfig,
    Config,
    ConsolidatorConfig,
    DeploymentConfig,
    LinkConfig,
    SchedulerConfig,
)
from festina.messages import Load, Park, Unload, Wake
from festina.runtime.protocol.client_effects import ClientLimits
from festina.simulator.faults.demand import Ask, draw_asks

AGENTS = tuple(f"agent{number}" for number in range(3))
CLIENTS = tuple(f"client{number}" for number in range(3))
SCHEDULER = "scheduler"
STANDBY = "standby"
METHODS: tuple[Literal["cheapest", "copy", "recompute"], ...] = ("cheapest", "copy", "recompute")
CONSOLIDATOR = "consolidator"

LEASE_S = 1.5
"""Of drains."""

STORM_S = 10.0
"""Faults begin at 0 and have ended by then; crashed processes are back."""

CONSOLIDATED_S = STORM_S + 0.5
"""When the consolidator is killed for good: what it drained must be open by the audit."""

AUDIT_S = 13.5
"""When the scheduler is killed for the comparison: after the last late message, and `dead_s`."""

LIMIT_S = 150.0
"""When everything must have ended."""

DELAY_S_MAX = 2.0
"""No message is later than that."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How likely a message meets a fault; links differ in how much of it they get.

    Attributes:
        loss: Probability of being lost.
        repeat: Probability of arriving twice.
        reorder: Probability of being overtaken by later ones.
        delay_s: Mean delay, exponential.
    """

    loss: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0
    delay_s: float = 0.0005


@dataclass(frozen=True, slots=True)
class Cut:
    """Links between `names` and all others do not work from `start` to `end`.

    Attributes:
        start: Seconds.
        end: Seconds.
        names: The processes on one side.
        one_way: Only what they send is cut, not what they are sent.
        held: Messages arrive when the cut ends, as TCP would have it; else they are lost.
        others: The processes on the other side; none means all.
    """

    start: float
    end: float
    names: frozenset[str]
    one_way: bool
    held: bool
    others: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outage:
    """A process stops for a while.

    Attributes:
        process: Its name.
        at: When.
        for_s: For how long.
        crash: It loses its memory; else it is frozen and goes on.
    """

    process: str
    at: float
    for_s: float
    crash: bool


@dataclass(frozen=True, slots=True)
class EngineFaults:
    """Probabilities per step or load.

    Attributes:
        step: A step fails.
        load: A load fails.
        slow: A step takes a second longer.
        lost: The engine is lost in a step, and all that was in it.
    """

    step: float = 0.0
    load: float = 0.0
    slow: float = 0.0
    lost: float = 0.0


@dataclass(frozen=True, slots=True)
class Order:
    """An agent is told what a consolidator would tell it."""

    at: float
    agent: str
    order: Load | Unload | Park | Wake


@dataclass(frozen=True, slots=True)
class Move:
    """An agent is told to give its requests of a model to another one, as that is then."""

    at: float
    agent: str
    target: str
    model: str
    method: Literal["cheapest", "copy", "recompute"]


@dataclass(frozen=True, slots=True)
class Crowd:
    """Many requests that no scheduler has placed come to an agent at once, from a mute client."""

    at: float
    agent: str
    requests: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All of one seed.

    Attributes:
        seed: The seed.
        config: Settings of all processes.
        limits: Bounds of clients.
        weather: Of all links.
        cuts: Links that do not work.
        outages: Processes that crash or freeze; clients that crash stay away.
        engine: Of all agents.
        orders: Of a consolidator.
        moves: Requests that go from agent to agent.
        hosts: Where agents are: those of one host share memory.
        crowds: Requests past the scheduler.
        asks: Requests.
        audit_down_s: How long the scheduler is away at the audit.
        closes: Clients are told that a connection broke as its process crashed.
        clock_s: Each process' clock minus virtual time: clocks are never compared.
    """

    seed: int
    config: Config
    limits: ClientLimits
    weather: Weather
    cuts: tuple[Cut, ...]
    outages: tuple[Outage, ...]
    engine: EngineFaults
    orders: tuple[Order, ...]
    moves: tuple[Move, ...]
    hosts: dict[str, str]
    crowds: tuple[Crowd, ...]
    asks: tuple[Ask, ...]
    audit_down_s: float
    clock_s: dict[str, float]
    closes: bool = False

    @property
    def consolidates(self) -> bool:
        """Whether there is a consolidator."""
        return self.config.consolidator.policy != "off"

    @property
    def standby(self) -> bool:
        """Whether there is a second scheduler."""
        return bool(self.config.scheduler.standby_endpoint)

    def frozen_s(self, process: str) -> float:
        """How long it does nothing, in all."""
        return sum(
            outage.for_s
            for outage in self.outages
            if outage.process == process and not outage.crash
        )


def draw_plan(seed: int) -> Plan:
    """The plan of a seed; each kind of fault is in some plans and not in others."""
    rng, more = random.Random(f"faults/{seed}"), random.Random(f"more faults/{seed}")
    engines = random.Random(f"faults/{seed}/engines")
    moves = random.Random(f"faults/{seed}/moves")
    planning = random.Random(f"faults/{seed}/consolidator")
    config = replace(_config(rng), consolidator=_consolidator(planning))
    if more.random() < 0.5:
        pair = replace(config.scheduler, standby_endpoint="tcp://standby:1")
        config = replace(config, scheduler=pair)
    models = tuple(item.name for item in config.deployments)
    return Plan(
        seed=seed,
        config=config,
        limits=ClientLimits(
            requests_max=rng.choice((16, 64)),
            answer_timeout_s=rng.choice((1.5, 4.0)),
            resend_s=0.5,
            probe_s=1.0,
            idle_s=rng.choice((0.5, 5.0)),
            backoff_s_max=2.0,
            resumptions_max=more.choice((0, 3, 8)),
            resume_s=more.choice((1.0, 5.0)),
        ),
        weather=Weather(
            loss=_sometimes(rng, 0.05),
            repeat=_sometimes(rng, 0.2),
            reorder=_sometimes(rng, 0.05),
            delay_s=rng.choice((0.0005, 0.005, 0.05, 0.2)),
        ),
        cuts=(*_cuts(rng), *_cuts_of_pair(more)),
        outages=(
            *_outages(rng, (SCHEDULER, *AGENTS, *CLIENTS)),
            *_outages(more, (STANDBY,)),
            *_outages(planning, (CONSOLIDATOR,)),
        ),
        engine=EngineFaults(
            _sometimes(rng, 0.02),
            _sometimes(rng, 0.3),
            _sometimes(rng, 0.02),
            _sometimes(engines, 0.02),
        ),
        orders=(*_orders(rng, models), *_parks(engines)),
        moves=tuple(_moves(moves, models)),
        hosts=_hosts(moves),
        crowds=tuple(
            Crowd(rng.uniform(1.0, STORM_S - 3.0), rng.choice(AGENTS), rng.randint(20, 100))
            for _ in range(rng.choice((0, 0, 1)))
        ),
        asks=draw_asks(rng, CLIENTS, models, STORM_S, AUDIT_S),
        audit_down_s=rng.choice((0.0, rng.uniform(0.0, 3.0))),
        clock_s={name: rng.uniform(0.0, 1e6) for name in (SCHEDULER, *AGENTS, *CLIENTS, STANDBY)}
        | {CONSOLIDATOR: planning.uniform(0.0, 1e6)},
        closes=more.random() < 0.5,
    )


def _config(rng: random.Random) -> Config:
    return Config(
        deployments=tuple(
            DeploymentConfig(
                name=name,
                weights=weights,
                kv_tokens=rng.choice((512, 2048)),
                context_tokens=256,
                keep_alive_s=rng.choice((0.0, 1.0)),
                pace=rng.choice((0.0, 0.5, 1.0)),
                preload=rng.random() < 0.5,
            )
            for name, weights in (("chat", "sim:llama-8b"), ("code", "sim:llama-3b"))
        ),
        link=LinkConfig(heartbeat_s=0.5, missed_max=4, queue_max=rng.choice((32, 4096))),
        scheduler=SchedulerConfig(
            policy=rng.choice(("festina", "paper")), reservation_s=2.0, retry_after_ms=200
        ),
        agent=AgentConfig(
            policy=rng.choice(("festina", "paper")),
            summary_hz=10.0,
            batch_max=rng.choice((4, 32)),
            chunk_tokens=64,
            waiting_max=rng.choice((3, 12, 64)),
            client_timeout_s=3.0,
            engine_failures_max=1000,
        ),
    )


def _consolidator(rng: random.Random) -> ConsolidatorConfig:
    """As eager as can be: whatever may be parked is."""
    return ConsolidatorConfig(
        policy=rng.choice(("festina", "festina", "off")),
        look_s=0.3,
        every_s=0.6,
        dwell_s=rng.choice((0.5, 2.0)),
        warmup_s=0.5,
        window_s=5.0,
        lease_s=LEASE_S,
        patience_s=3.0,
        least_w=0.0,
    )


def _sometimes(rng: random.Random, most: float) -> float:
    """0 in two plans of five, else up to `most`."""
    return max(0.0, rng.uniform(-2 / 3, 1.0)) * most


def _cuts(rng: random.Random) -> Iterator[Cut]:
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        start = rng.uniform(0.0, STORM_S - 1.0)
        names = rng.sample((SCHEDULER, *AGENTS, *CLIENTS), rng.randint(1, 3))
        yield Cut(
            start=start,
            end=rng.uniform(start, min(start + 5.0, STORM_S)),
            names=frozenset(names),
            one_way=rng.random() < 0.3,
            held=rng.random() < 0.5,
        )


def _cuts_of_pair(rng: random.Random) -> Iterator[Cut]:
    """The two schedulers cannot hear each other, or the second one nobody."""
    for _ in range(rng.choice((0, 0, 1, 2))):
        start = rng.uniform(0.0, STORM_S - 1.0)
        yield Cut(
            start=start,
            end=rng.uniform(start, STORM_S),
            names=frozenset({STANDBY}),
            one_way=rng.random() < 0.3,
            held=rng.random() < 0.3,
            others=rng.choice((frozenset({SCHEDULER}), frozenset())),
        )


def _outages(rng: random.Random, names: tuple[str, ...]) -> Iterator[Outage]:
    """One at a time for each process."""
    for name in names:
        at = rng.uniform(0.0, 4.0)
        while at < STORM_S - 0.5 and rng.random() < 0.5:
            for_s = rng.uniform(
                0.0, min(5.0 if name in (SCHEDULER, STANDBY) else 3.0, STORM_S - at)
            )
            crash = rng.random() < (0.3 if name in CLIENTS else 0.7)
            yield Outage(name, at, for_s, crash)
            if crash and name in CLIENTS:
                break
            at += for_s + rng.uniform(0.1, 4.0)


def _orders(rng: random.Random, models: tuple[str, ...]) -> Iterator[Order]:
    for _ in range(rng.choice((0, 0, 3, 8))):
        at, agent, model = rng.uniform(0.5, STORM_S), rng.choice(AGENTS), rng.choice(models)
        yield Order(at, agent, Load(model) if rng.random() < 0.3 else Unload(model))


def _parks(rng: random.Random) -> Iterator[Order]:
    """Parks and wakes; a request wakes an agent that nobody else wakes."""
    for _ in range(rng.choice((0, 3, 12))):
        order = Park() if rng.random() < 0.7 else Wake()
        yield Order(rng.uniform(0.5, STORM_S), rng.choice(AGENTS), order)


def _moves(rng: random.Random, models: tuple[str, ...]) -> Iterator[Move]:
    """Drains of one agent into another, some of them at once and there and back."""
    for _ in range(rng.choice((0, 20, 100))):
        agent, target = rng.sample(AGENTS, 2)
        method = rng.choice(METHODS)
        yield Move(rng.uniform(0.5, AUDIT_S), agent, target, rng.choice(models), method)


def _hosts(rng: random.Random) -> dict[str, str]:
    hosts = rng.choice((1, 2, len(AGENTS)))
    return {agent: f"host{number % hosts}" for number, agent in enumerate(AGENTS)}
