"""Carrying a plan out, step by step, from what is seen of the cluster (DESIGN 4.3).

Every order says what should be so, and is given again at each look until it is so: a lost one comes
again, one that came twice changes nothing. A run can end after any step and leaves a valid cluster:
models that were loaded are of use or go by their keep-alive, and a drain ends with its lease.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from festina.control.consolidation import Empty, WakeUp
from festina.engine.base import BLOCK_TOKENS
from festina.messages import (
    MOVE_TARGETS_MAX,
    AgentInfo,
    ConsolidationEvent,
    Direct,
    Drain,
    Load,
    Migrate,
    MoveTarget,
    Order,
    Park,
    Wake,
)
from festina.types import GpuSummary, ModelState, ModelSummary

Agents = Mapping[str, AgentInfo]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a look at the cluster came to.

    Attributes:
        orders: To be passed on.
        done: What the run came to; None while it goes on.
        why: In a line, if it was given up.
    """

    orders: tuple[Direct, ...] = ()
    done: str | None = None
    why: str = ""


class Run(Protocol):
    """One GPU's part of a plan."""

    @property
    def gpu(self) -> str:
        """Its agent."""

    @property
    def expected_j(self) -> float:
        """What it expects to save."""

    def begin(self) -> ConsolidationEvent:
        """For those who watch."""

    def advance(self, agents: Agents, now: float) -> Progress:
        """The cluster now: what to do next."""

    def refused(self, why: str) -> None:
        """An order was not passed on."""

    def give_up(self, why: str) -> Progress:
        """End it now."""


class EmptyRun:
    """Empties a GPU and parks it.

    Args:
        plan: Number of the plan.
        empty: What to do.
        epoch: Of the agent; another one has another GPU's worth of state.
        lease_s: Of the drain.
        patience_s: How long it may take.
        now: When it begins.
        emptied: All GPUs that the plan empties.
    """

    def __init__(
        self,
        plan: int,
        empty: Empty,
        epoch: int,
        lease_s: float,
        patience_s: float,
        now: float,
        emptied: Collection[str],
    ) -> None:
        self._emptied = emptied
        self._plan = plan
        self._empty = empty
        self._epoch = epoch
        self._lease_ms = round(lease_s * 1e3)
        self._until = now + patience_s
        self._drained = False
        self._refused = ""

    @property
    def gpu(self) -> str:
        """See `Run`."""
        return self._empty.gpu

    @property
    def expected_j(self) -> float:
        """See `Run`."""
        return self._empty.gain_j

    @property
    def valley_s(self) -> float:
        """How long it expects the GPU to stay parked."""
        return self._empty.valley_s

    def begin(self) -> ConsolidationEvent:
        """See `Run`."""
        moves = ", ".join(f"{model} to {to}" for model, to in self._empty.moves)
        why = self._empty.why + (f"; {moves}" if moves else "")
        return ConsolidationEvent(0.0, self._plan, "empty", self.gpu, why, self.expected_j)

    def refused(self, why: str) -> None:
        """See `Run`."""
        self._refused = self._refused or why

    def give_up(self, why: str) -> Progress:
        """See `Run`; whoever is emptied takes requests again."""
        return Progress((self._direct(self.gpu, self._epoch, Drain(0)),), "aborted", why)

    def advance(self, agents: Agents, now: float) -> Progress:
        """See `Run`."""
        agent = agents.get(self.gpu)
        if agent is None or agent.epoch != self._epoch:
            return Progress((), "aborted", "its agent is gone")
        gpu = agent.summary
        if gpu.parked:
            return Progress((), "parked")
        wrong = self._wrong(gpu, agents, now)
        if wrong:
            return self.give_up(wrong)
        self._drained = self._drained or gpu.draining
        loads = [
            self._direct(to, agents[to].epoch, Load(model))
            for model, to in self._empty.moves
            if _state(agents[to].summary, model) in (ModelState.ABSENT, ModelState.UNLOADING)
        ]
        ready = all(
            _state(agents[to].summary, model) is ModelState.READY for model, to in self._empty.moves
        )
        if not (ready or self._drained):  # what comes meanwhile is served here, in time
            return Progress(tuple(loads))
        orders = [self._direct(self.gpu, self._epoch, Drain(self._lease_ms)), *loads]
        for model, to in self._empty.moves:
            orders += self._move(gpu, model, agents[to], agents)
        if gpu.draining and _empty(gpu):
            orders.append(self._direct(self.gpu, self._epoch, Park()))
        return Progress(tuple(orders))

    def _wrong(self, gpu: GpuSummary, agents: Agents, now: float) -> str:
        """Why it should be given up; "" if nothing is wrong."""
        if self._refused:
            return self._refused
        if self._drained and not gpu.draining:
            return "it is needed, or its lease ran out"
        lost = [to for _, to in self._empty.moves if to not in agents or agents[to].summary.parked]
        if lost:
            return f"{lost[0]} cannot take over what runs there"
        return "it takes too long" if now >= self._until else ""

    def _move(self, gpu: GpuSummary, model: str, to: AgentInfo, agents: Agents) -> list[Direct]:
        """What is left of one model here, once it is ready there."""
        here = next((one for one in gpu.models if one.model == model), None)
        if here is None or not (here.running or here.waiting):
            return []
        if _state(to.summary, model) is not ModelState.READY:
            return []
        order = Migrate(model, to.agent, to.epoch, to.endpoint)
        room = _room(to.summary, here)
        if room < here.running + here.waiting:
            order = replace(order, room=room, others=self._others(here, to, agents))
        return [self._direct(self.gpu, self._epoch, order)]

    def _others(self, here: ModelSummary, to: AgentInfo, agents: Agents) -> tuple[MoveTarget, ...]:
        """Who else has the model and takes what does not fit the first."""
        found = [
            MoveTarget(agent.agent, agent.epoch, agent.endpoint, _room(agent.summary, here))
            for agent in agents.values()
            if agent.agent not in (*self._emptied, to.agent)
            and not (agent.summary.parked or agent.summary.draining)
            and _state(agent.summary, here.model) is ModelState.READY
        ]
        return tuple(sorted(found, key=lambda other: -other.room)[:MOVE_TARGETS_MAX])

    def _direct(self, agent: str, epoch: int, order: Order) -> Direct:
        return Direct(self._plan, agent, epoch, order)


class WakeRun:
    """Wakes a GPU.

    Args:
        plan: Number of the plan.
        wake: What to do.
        epoch: Of the agent.
        patience_s: How long it may take.
        now: When it begins.
    """

    expected_j = 0.0

    def __init__(self, plan: int, wake: WakeUp, epoch: int, patience_s: float, now: float) -> None:
        self._plan = plan
        self._wake = wake
        self._epoch = epoch
        self._until = now + patience_s

    @property
    def gpu(self) -> str:
        """See `Run`."""
        return self._wake.gpu

    def begin(self) -> ConsolidationEvent:
        """See `Run`."""
        return ConsolidationEvent(0.0, self._plan, "wake", self.gpu, self._wake.why)

    def refused(self, why: str) -> None:
        """See `Run`; it is tried again until patience ends."""

    def give_up(self, why: str) -> Progress:
        """See `Run`."""
        return Progress((), "aborted", why)

    def advance(self, agents: Agents, now: float) -> Progress:
        """See `Run`."""
        agent = agents.get(self.gpu)
        if agent is None or agent.epoch != self._epoch:
            return self.give_up("its agent is gone")
        if not agent.summary.parked:
            return Progress((), "woken")
        if now >= self._until:
            return self.give_up("it takes too long")
        return Progress((Direct(self._plan, self.gpu, self._epoch, Wake()),))


def _state(gpu: GpuSummary, model: str) -> ModelState:
    return next((one.state for one in gpu.models if one.model == model), ModelState.ABSENT)


def _room(gpu: GpuSummary, model: ModelSummary) -> int:
    """Requests such as the model's, on the mean, that fit the KV pools there, over all models."""
    tokens = model.context_tokens + model.waiting_tokens
    each = tokens / max(1, model.running + model.waiting) + BLOCK_TOKENS
    return int(gpu.kv_tokens_free / each)


def _empty(gpu: GpuSummary) -> bool:
    return not gpu.moving and not any(model.running or model.waiting for model in gpu.models)
