"""One run: a cluster in virtual time that goes through a plan."""

from __future__ import annotations

from collections import Counter
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from festina.messages import Generate, Migrate, MoveTarget
from festina.simulator.faults.agent import AgentProcess, endpoint_of
from festina.simulator.faults.audit import Audit
from festina.simulator.faults.client import ClientProcess
from festina.simulator.faults.consolidator import ConsolidatorProcess
from festina.simulator.faults.demand import Ask
from festina.simulator.faults.journal import Broken, Journal
from festina.simulator.faults.network import LATENCY_S, Network, Stuck
from festina.simulator.faults.plan import (
    AGENTS,
    AUDIT_S,
    CLIENTS,
    CONSOLIDATED_S,
    CONSOLIDATOR,
    DELAY_S_MAX,
    LIMIT_S,
    SCHEDULER,
    STANDBY,
    STORM_S,
    Crowd,
    Move,
    Order,
    Outage,
    Plan,
    draw_plan,
)
from festina.simulator.faults.process import Parts, Process, Site
from festina.simulator.faults.profiles import Profiles
from festina.simulator.faults.scheduler import SchedulerProcess
from festina.simulator.faults.watch import Watch

_LATE_S = 9.0
_LOOK_S = 1.0
_SETTLED_S = STORM_S + DELAY_S_MAX + 1.0


class SeedResult(Struct, frozen=True):
    """What a seed came to.

    Attributes:
        seed: The seed.
        digest: SHA-256 of all that happened: frames as they arrived, faults, events.
        broken: Promises that were not kept.
        faults: How often each kind of fault was injected.
        ends: How often requests ended in each way: "complete" or the code of an error.
        peaks: Greatest use of each bounded thing, as a share of its bound.
        simulated_s: Virtual seconds.
    """

    seed: int
    digest: str
    broken: tuple[Broken, ...]
    faults: dict[str, int]
    ends: dict[str, int]
    peaks: dict[str, float]
    simulated_s: float


def simulate_seed(seed: int, profiles: Profiles, parts: Parts | None = None) -> SeedResult:
    """Run a seed and check the promises.

    Args:
        seed: Which plan.
        profiles: Of the devices.
        parts: What is under test; None for festina's own.
    """
    try:
        cluster = FaultCluster(draw_plan(seed), profiles, parts or Parts())
        cluster.run()
    except Exception as error:
        error.add_note(f"in seed {seed}: festina simulate-faults --first {seed} --seeds 1")
        raise
    return cluster.result()


class FaultCluster:
    """Processes, and what befalls them.

    Args:
        plan: What goes wrong.
        profiles: Of the devices.
        parts: What is under test.

    Attributes:
        journal: What happened.
    """

    def __init__(self, plan: Plan, profiles: Profiles, parts: Parts) -> None:
        self.journal = Journal()
        self._network = Network(plan, self.journal)
        watch = Watch(self.journal, plan)
        self._site = Site(plan, self._network, self.journal, watch, profiles, parts)
        self._processes: dict[str, Process] = {}
        self._audit: Audit | None = None
        standby = (STANDBY,) if plan.standby else ()
        consolidator = (CONSOLIDATOR,) if plan.consolidates else ()
        for name in (SCHEDULER, *standby, *AGENTS, *CLIENTS, *consolidator):
            self._start(name)
        for outage in plan.outages:
            if outage.process in self._processes:
                self._network.at(outage.at, partial(self._strike, outage))
        for order in plan.orders:
            self._network.at(order.at, partial(self._order, order))
        for move in plan.moves:
            self._network.at(move.at, partial(self._move, move))
        for crowd in plan.crowds:
            self._network.at(crowd.at, partial(self._crowd, crowd))
        for ask in plan.asks:
            self._network.at(ask.at, partial(self._ask, ask))
        if plan.consolidates:
            self._network.at(CONSOLIDATED_S, self._kill_consolidator)
        self._network.at(AUDIT_S, self._kill_for_audit)
        if plan.standby:
            self._network.at(_SETTLED_S, self._look_for_two)

    def run(self) -> None:
        """Until all is quiet, or time is up; then say what is not as it should be."""
        network = self._network
        try:
            network.run(AUDIT_S + _LATE_S)
            while not self._quiet() and network.now < LIMIT_S:
                network.run(network.now + _LOOK_S)
        except Stuck:
            self.journal.breach(4, network.now, "too many events: time does not pass")
        self._site.watch.finish(network.now)
        for what in self._leftovers():
            self.journal.breach(4, network.now, what)

    def result(self) -> SeedResult:
        """What it came to."""
        return SeedResult(
            seed=self._site.plan.seed,
            digest=self.journal.digest(),
            broken=tuple(self.journal.broken),
            faults=_sorted(self.journal.faults + self.journal.did),
            ends=_sorted(self.journal.ends),
            peaks=dict(sorted(self.journal.peaks.items())),
            simulated_s=self._network.now,
        )

    # What befalls processes

    def _start(self, name: str) -> Process:
        if name in (SCHEDULER, STANDBY):
            process: Process = SchedulerProcess(self._site, name)
        elif name in AGENTS:
            process = AgentProcess(self._site, name)
        elif name == CONSOLIDATOR:
            process = ConsolidatorProcess(self._site)
        else:
            process = ClientProcess(self._site, name)
        self._processes[name] = process
        return process

    def _strike(self, outage: Outage) -> None:
        process, now = self._processes[outage.process], self._network.now
        kind = outage.process.rstrip("0123456789")
        if not outage.crash:
            self.journal.fault(now, f"{kind} froze", outage.process)
            process.freeze(outage.for_s)
            return
        self.journal.fault(now, f"{kind} crashed", outage.process)
        self._crash(process)
        if outage.process not in CLIENTS:
            self._network.at(now + outage.for_s, partial(self._restart, outage.process))

    def _crash(self, process: Process) -> None:
        process.crash()
        if not self._site.plan.closes:
            return
        for client in self._processes.values():
            if isinstance(client, ClientProcess):
                client.later(LATENCY_S, partial(client.broke, process.name))

    def _restart(self, name: str) -> None:
        self._start(name)

    def _order(self, order: Order) -> None:
        """As if its scheduler had sent it."""
        self.journal.fault(self._network.now, type(order.order).__name__.lower(), order.agent)
        self._network.send(SCHEDULER, order.agent, order.agent.encode(), order.order)

    def _move(self, move: Move) -> None:
        """As if its scheduler had sent it, which knows the target as it is now."""
        target = self._processes[move.target]
        assert isinstance(target, AgentProcess)  # noqa: S101 - for the type checker
        self.journal.fault(self._network.now, "migrate", move.agent)
        order = Migrate(
            move.model, move.target, target.epoch, endpoint_of(move.target), method=move.method
        )
        if move.method == "cheapest":  # then over all that there are, one request each
            others = [
                MoveTarget(agent.name, agent.epoch, endpoint_of(agent.name), 1)
                for agent in self._processes.values()
                if isinstance(agent, AgentProcess) and agent.name not in (move.agent, move.target)
            ]
            order = replace(order, room=1, others=tuple(others))
        self._network.send(SCHEDULER, move.agent, move.agent.encode(), order)

    def _crowd(self, crowd: Crowd) -> None:
        agent = self._processes[crowd.agent]
        assert isinstance(agent, AgentProcess)  # noqa: S101 - for the type checker
        self.journal.fault(self._network.now, "crowd", crowd.agent)
        model = self._site.plan.config.deployments[0].name
        for number in range(crowd.requests):
            generate = Generate(str(number), model, 0, agent.epoch, 20, 0.0, text="crowd")
            self._network.send("crowd", crowd.agent, b"crowd/1", generate)

    def _ask(self, ask: Ask) -> None:
        client = self._living_client(ask)
        if client is not None:
            client.soon(lambda: client.ask(ask))

    def _living_client(self, ask: Ask) -> ClientProcess | None:
        client = self._processes[ask.client]
        return client if isinstance(client, ClientProcess) and client.alive else None

    def _kill_consolidator(self) -> None:
        """For good: nothing may depend on it."""
        process = self._processes[CONSOLIDATOR]
        if process.alive:
            self.journal.fault(self._network.now, "consolidator crashed", CONSOLIDATOR)
            process.crash()

    def _drained(self) -> None:
        """Whatever a dead consolidator drained takes requests again."""
        for name, process in self._processes.items():
            if isinstance(process, AgentProcess) and process.logic.power.draining(process.now):
                self.journal.breach(4, self._network.now, f"{name} is drained for good")

    def _kill_for_audit(self) -> None:
        self._drained()
        old = self._processes[SCHEDULER]
        assert isinstance(old, SchedulerProcess)  # noqa: S101 - for the type checker
        self.journal.fault(self._network.now, "scheduler crashed", SCHEDULER)
        self._crash(old)
        down_s = self._site.plan.audit_down_s
        self._network.at(self._network.now + down_s, lambda: self._begin_audit(old))

    def _begin_audit(self, old: SchedulerProcess) -> None:
        new = self._start(SCHEDULER)
        assert isinstance(new, SchedulerProcess)  # noqa: S101 - for the type checker
        self._audit = Audit(self._site, old, new)

    def _look_for_two(self) -> None:
        """Of two schedulers that hear each other one serves (promise 2)."""
        pair = [self._processes[name] for name in (SCHEDULER, STANDBY)]
        if all(isinstance(one, SchedulerProcess) and one.serves for one in pair):
            self.journal.breach(2, self._network.now, "two schedulers serve")
            return
        self._network.at(self._network.now + _LOOK_S / 4, self._look_for_two)

    # Whether all is over

    def _quiet(self) -> bool:
        return not self._site.watch.open and not self._leftovers()

    def _leftovers(self) -> list[str]:
        """What is still held or waited for, though no request is left."""
        found = []
        for name, process in self._processes.items():
            if isinstance(process, AgentProcess):
                if len(process.logic.requests):
                    found.append(f"{name} still has {len(process.logic.requests)} requests")
                if process.logic.moves.moving or process.logic.moves.incoming:
                    found.append(f"{name} still has moves under way")
                if process.blocks_taken():
                    found.append(f"{name} still has {process.blocks_taken()} KV blocks in use")
            elif isinstance(process, ClientProcess) and process.alive:
                if process.logic.next_timer(process.now) is not None:
                    found.append(f"{name} still waits for something")
            elif isinstance(process, SchedulerProcess):
                placed = max(process.logic.pending, process.view.reserved())
                if placed:
                    found.append(f"{placed} placements are still pending")
        if self._audit is None or not self._audit.done:
            found.append("the comparison of schedulers has not ended")
        return found


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
