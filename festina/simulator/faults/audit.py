"""Promise 2: a scheduler that starts empty knows within a heartbeat all that the last one knew.

The dead scheduler's logic goes on as a twin: it hears what agents tell its successor, and is not
answered. One heartbeat after its start the successor must say the same about the cluster, and judge
every GPU alike for every deployment, to the last bit. What it placed and refused so far are figures
for people, and reservations live for `reservation_s` at most: neither is state to rebuild.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from festina.errors import FestinaError
from festina.messages import (
    AgentInfo,
    AnyMessage,
    Cluster,
    GetCluster,
    Leave,
    Ping,
    Placed,
    Refused,
    Register,
    Submit,
    Summary,
)
from festina.simulator.faults.agent import AgentProcess
from festina.simulator.faults.demand import GENEROUS
from festina.simulator.faults.network import LATENCY_S
from festina.simulator.faults.process import Site
from festina.simulator.faults.scheduler import CATCH_UP_S, SchedulerProcess
from festina.types import Slo

_LEGS = 6
"""Messages between the successor's first heartbeat from an agent and that agent's first summary."""

_WAIT_S = 0.05
_PEER = b"audit"
_LENGTHS = ((1, 1), (100, 50))
_OBJECTIVES = (GENEROUS, Slo(300.0, 30.0))


class Audit:
    """Compares a scheduler with its predecessor.

    Args:
        site: Where they run.
        old: The one that has crashed.
        new: The one that has just started.
    """

    def __init__(self, site: Site, old: SchedulerProcess, new: SchedulerProcess) -> None:
        self._site = site
        self._old = old
        self._new = new
        self.done = False
        new.tap = self._hear
        heartbeat_s = site.plan.config.link.heartbeat_s
        self._latest = site.network.now + heartbeat_s + site.plan.config.scheduler.reservation_s * 2
        due = site.network.now + heartbeat_s + _LEGS * 2 * LATENCY_S + CATCH_UP_S
        site.network.at(due, self._compare_cluster)

    def _hear(self, peer: bytes, message: AnyMessage, now: float) -> None:
        self._old.logic.on_timer(now)
        if isinstance(message, Register | Summary | Leave | Ping):
            self._old.logic.on_message(peer, message, now)

    def _compare_cluster(self) -> None:
        self._new.catch_up()
        living = {
            name: process.epoch
            for name, process in self._site.network.processes.items()
            if isinstance(process, AgentProcess)
        }
        old, new = self._cluster(self._old), self._cluster(self._new)
        known = {info.agent: info.epoch for info in new.values()}
        if known != living:
            self._breach(f"after a heartbeat it knows {known} of the agents {living}")
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                self._breach(f"it takes {name} for {new.get(name)}, it was {old.get(name)}")
        self._compare_judgement()

    def _compare_judgement(self) -> None:
        """As soon as there is no reservation; only requests in between make some."""
        now = self._site.network.now
        if self._old.view.reserved() or self._new.view.reserved():
            if now >= self._latest:
                self._breach("reservations outlive their bound")
            else:
                self._site.network.at(now + _WAIT_S, self._compare_judgement)
                return
        for question in self._questions():
            old, new = _judge(self._old, question), _judge(self._new, question)
            if old != new:
                self._breach(f"asked {question} it says {new}, it would have said {old}")
        self._new.tap = None
        self.done = True

    def _questions(self) -> Iterator[Submit]:
        agents = sorted(self._new.view.names.values())
        for deployment in self._site.plan.config.deployments:
            for agent in agents:
                others = tuple(name for name in agents if name != agent)
                for inputs, outputs in _LENGTHS:
                    for slo in _OBJECTIVES:
                        name = f"{agent}-{inputs}-{slo.ttft_ms:g}"
                        yield Submit(name, deployment.name, inputs, outputs, slo, others)

    def _cluster(self, scheduler: SchedulerProcess) -> dict[str, AgentInfo]:
        sends = scheduler.logic.on_message(_PEER, GetCluster(), self._new.now)
        clusters = [send.message for send in sends if isinstance(send.message, Cluster)]
        return {info.agent: info for cluster in clusters for info in cluster.agents}

    def _breach(self, what: str) -> None:
        self._site.journal.breach(2, self._site.network.now, f"a new scheduler: {what}")


def _judge(scheduler: SchedulerProcess, question: Submit) -> object:
    """What placing it would cost, by the view; and what the scheduler answers but for its ticket.

    The answer reserves; later questions would see that, but both schedulers alike.
    """
    view, slots = scheduler.view.view, {name: slot for slot, name in scheduler.view.names.items()}
    exclude = [slots[name] for name in question.exclude]
    slo = question.slo or GENEROUS
    try:
        found = view.place(question.model, question.input_tokens, question.max_tokens, slo, exclude)
    except FestinaError as error:
        judgement: object = error.info()
    else:
        judgement = (
            scheduler.view.names[found.slot],
            (found.action, found.on_time, found.clock_mhz),
            (found.ttft_ms, found.tbt_ms, found.energy_j),
        )
    if scheduler.site.plan.standby:
        return judgement, ()  # a new one does not serve as long as the other one does
    answers = [
        msgspec.structs.replace(send.message, ticket=0)
        if isinstance(send.message, Placed)
        else send.message
        for send in scheduler.logic.on_message(_PEER, question, scheduler.now)
        if isinstance(send.message, Placed | Refused)
    ]
    return judgement, answers
