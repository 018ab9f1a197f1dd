"""What the global scheduler does with messages, without I/O (DESIGN sections 1, 2 and 5).

It keeps who the agents are, what they last said, and which placements have not shown up yet: all of
it comes back from the agents' `Register` and `Summary` within one heartbeat after a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from festina.account import Account
from festina.config import Config
from festina.errors import (
    AgentLostError,
    BadRequestError,
    FestinaError,
    OverloadedError,
    ProtocolError,
    SchedulerLostError,
)
from festina.messages import (
    AgentInfo,
    AnyMessage,
    Cluster,
    Consolidation,
    DeploymentInfo,
    Direct,
    Directed,
    Failed,
    GetCluster,
    Leave,
    Load,
    Migrate,
    Order,
    Ping,
    Placed,
    Pong,
    Refused,
    Register,
    Reregister,
    Submit,
    Summary,
    Twin,
    Wake,
    Welcome,
)
from festina.runtime.protocol.closures import Closures
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.pair import PRIMARY, Pair
from festina.runtime.protocol.submit_checks import check_submit, likely_input_tokens
from festina.runtime.protocol.summary_pace import SummaryPace
from festina.security.rate import RateLimitError
from festina.types import GpuSummary, Slo

PEERS = "peers"
"""The scheduler's only link: clients and agents come to the same socket."""


class Decision(Protocol):
    """Where a request should run; see `festina.control.placement.Placement`."""

    @property
    def slot(self) -> int:
        """The GPU."""

    @property
    def action(self) -> str:
        """What the agent does first: "run", "load" or "wake"."""

    @property
    def on_time(self) -> bool:
        """Whether the objectives are predicted to hold."""


class View(Protocol):
    """What the logic needs of `festina.control.placement.ClusterView`, which see."""

    def add_gpu(
        self,
        name: str,
        device_kind: str,
        sms_total: int,
        clocks_mhz: Sequence[int],
        memory_bytes: int,
        models: Iterable[str],
    ) -> int:
        """Register a GPU; returns its slot."""

    def remove_gpu(self, slot: int) -> None:
        """Forget a GPU."""

    def update(self, slot: int, summary: GpuSummary) -> None:
        """Take the newest summary of a GPU."""

    def place(
        self,
        model: str,
        input_tokens: int,
        max_tokens: int,
        slo: Slo,
        exclude: Sequence[int] = (),
    ) -> Decision:
        """Decide where a request runs."""

    def reserve(
        self,
        slot: int,
        ticket: int,
        model: str,
        input_tokens: int,
        now: float,
        max_tokens: int = 0,
    ) -> None:
        """Count a placement until a summary names its ticket, or it expires."""

    def expire(self, now: float) -> int:
        """Forget the reservations that are due."""


@dataclass(slots=True)
class _Agent:
    """An agent that has registered."""

    slot: int
    register: Register
    peer: bytes
    heard: float
    summary: GpuSummary | None = None
    account: Account | None = None


@dataclass(slots=True)
class _Pending:
    """A placement whose request has not shown up at its agent, as far as is known."""

    submit: Submit
    placed: Placed


class SchedulerLogic:
    """One global scheduler. Holds no socket and no clock.

    Args:
        config: Deployments, heartbeats and placement settings.
        view: Where placement is decided; this object alone changes it. It knows all deployments.
        epoch: New, and larger, for every scheduler process.
        pair: Whether this one of two serves; None where there is but one.
    """

    def __init__(self, config: Config, view: View, epoch: int, pair: Pair | None = None) -> None:
        self._deployments = {deployment.name: deployment for deployment in config.deployments}
        self._retry_after_ms = config.scheduler.retry_after_ms
        self._reservation_s = config.scheduler.reservation_s
        self._dead_s = config.link.heartbeat_s * config.link.missed_max
        self._silent_s = config.link.silent_s
        self._pace = SummaryPace(config.agent.summary_hz)
        self._tick_s = min(config.link.heartbeat_s, config.scheduler.reservation_s) / 2
        self._pair = pair
        if pair is not None:
            self._tick_s = min(self._tick_s, pair.tick_s)
        self._tick = 0.0
        self._view = view
        self._epoch = epoch
        self._ticket = epoch  # microseconds: it gives out fewer before its successor starts
        self._agents: dict[str, _Agent] = {}
        self._slots: dict[int, _Agent] = {}
        self._silent: set[int] = set()
        self._pending: dict[tuple[bytes, str], _Pending] = {}
        self._keys: dict[int, tuple[bytes, str]] = {}
        self._expiries: deque[tuple[float, int]] = deque()
        self._closures = Closures(config.consolidator.dwell_s, config.link.heartbeat_s)
        self._consolidation: Consolidation | None = None
        self._consolidation_at = 0.0
        self._placed = 0
        self._refused = 0

    @property
    def pending(self) -> int:
        """Placements that have not shown up at their agents."""
        return len(self._pending)

    @property
    def active(self) -> bool:
        """Whether it serves clients; a standby that waits hears agents alone."""
        return self._pair is None or self._pair.active

    def on_message(
        self, peer: bytes, message: AnyMessage | ProtocolError, now: float
    ) -> list[Send]:
        """What to send in answer.

        Args:
            peer: Who sent it; goes into the answers.
            message: What it sent, or why that was no message.
            now: Seconds on a clock that never goes back.
        """
        match message:
            case Submit() if self._pair is not None and not self._pair.active:
                self._pair.hold(peer, message, now)
                return []
            case Submit():
                return self._on_submit(peer, message, now)
            case Summary():
                return self._on_summary(peer, message, now)
            case Ping(nonce):
                return [Send(PEERS, peer, Pong(nonce, self._epoch, self._summary_ms))]
            case Register():
                return self._on_register(peer, message, now)
            case Leave(name, epoch):
                if name in self._agents and self._agents[name].register.epoch == epoch:
                    self._drop(self._agents[name])
                return []
            case Direct():
                return self._on_direct(peer, message, now)
            case Consolidation():
                self._consolidation, self._consolidation_at = message, now
                return []
            case GetCluster():
                return [Send(PEERS, peer, self._cluster(now))]
            case RateLimitError():
                self._refused += 1
                refused = Refused(message.request_id, message.refusal.info())
                return [Send(PEERS, peer, refused)]
            case ProtocolError():
                return [Send(PEERS, peer, Failed("", message.info()))]
            case Twin() if self._pair is not None:
                link = PEERS if peer else PRIMARY
                return self._serve(self._pair.on_twin(link, peer, message, self._ticket, now), now)
            case Failed() | Refused() | Pong():  # answering answers would never end
                return []
        error = ProtocolError(
            f"a scheduler does not take a {type(message).__name__}",
            field="frame",
            expected="Submit, GetCluster, Register, Summary, Leave, Direct, Consolidation, Ping or "
            "Pong",
        )
        return [Send(PEERS, peer, Failed("", error.info()))]

    def hear(self, peers: Set[bytes], merged: int, now: float) -> None:
        """What is still to be taken in, before `on_timer`.

        Args:
            peers: Who has said it: agents behind them live.
            merged: Summaries that were merged since the last time.
            now: See `on_message`.
        """
        self._pace.look(merged, len(self._agents))
        for agent in self._agents.values() if peers else ():
            if agent.peer in peers:
                self._hear(agent, agent.peer, now)

    def next_timer(self, now: float) -> float:
        """When to call `on_timer`."""
        return max(now, self._tick)

    def on_timer(self, now: float) -> list[Send]:
        """Drop agents that are silent and placements that never showed up.

        The shell reads its link before, so that nobody is dropped for this process's own sleep.
        """
        if now < self._tick:
            return []
        self._tick = now + self._tick_s
        for agent in list(self._agents.values()):
            if now - agent.heard >= self._dead_s:
                self._drop(agent)
            elif now - agent.heard >= self._silent_s:
                self._silent.add(agent.slot)
        self._closures.expire(now)
        self._view.expire(now)
        while self._expiries and self._expiries[0][0] <= now:
            self._settle(self._expiries.popleft()[1])
        if self._pair is None:
            return []
        return self._serve(self._pair.on_timer(self._ticket, now), now)

    def _serve(self, sends: list[Send], now: float) -> list[Send]:
        """What has waited for this one of two to serve, if it has just begun to."""
        if self._pair is None or not self._pair.begins():
            return sends
        self._ticket = self._pair.first_ticket(self._ticket)
        held = self._pair.take_held()
        return [*sends, *(send for item in held for send in self._on_submit(*item, now))]

    # Requests

    def _on_submit(self, peer: bytes, submit: Submit, now: float) -> list[Send]:
        pending = self._pending.get((peer, submit.request_id))
        if pending is not None and pending.submit == submit and self._stands(pending.placed):
            return [Send(PEERS, peer, pending.placed)]
        if pending is not None:  # another try: its first one must not be answered again
            del self._pending[peer, submit.request_id]
        try:
            return self._place(peer, submit, now)
        except FestinaError as error:
            self._refused += 1
            return [Send(PEERS, peer, Refused(submit.request_id, error.info()))]

    def _place(self, peer: bytes, submit: Submit, now: float) -> list[Send]:
        deployment = check_submit(submit, self._deployments)
        if not self._slots:
            raise OverloadedError("no agent has joined", retry_after_ms=self._retry_after_ms)
        input_tokens = likely_input_tokens(submit, deployment)
        excluded = frozenset(self._avoided(submit) if submit.exclude or self._silent else ())
        decision = self._decide(submit, input_tokens, submit.slo or deployment.slo, excluded)
        agent = self._slots[decision.slot]
        self._ticket += 1
        self._view.reserve(
            decision.slot, self._ticket, submit.model, input_tokens, now, submit.max_tokens
        )
        register = agent.register
        placed = Placed(
            submit.request_id,
            register.agent,
            register.epoch,
            register.endpoint,
            self._ticket,
            register.public_key,
        )
        key = (peer, submit.request_id)
        self._pending[key] = _Pending(submit, placed)
        self._keys[self._ticket] = key
        self._expiries.append((now + self._reservation_s, self._ticket))
        self._placed += 1
        return [*self._prepare(agent, decision, submit.model, now), Send(PEERS, peer, placed)]

    def _decide(self, submit: Submit, input_tokens: int, slo: Slo, excluded: Set[int]) -> Decision:
        """Where it runs: on an open GPU, or else where it is in time, or else anywhere."""

        def place(exclude: Set[int]) -> Decision:
            size = (input_tokens, submit.max_tokens)
            return self._view.place(submit.model, *size, slo, tuple(exclude))

        if not self._closures.any:
            return place(excluded)
        late: Decision | None = None
        for closed in self._closures.to_avoid():
            try:
                decision = place(excluded | closed)
            except OverloadedError:
                continue
            if decision.on_time:
                return decision
            late = late or decision
        return late or place(excluded)

    def _prepare(self, agent: _Agent, decision: Decision, model: str, now: float) -> list[Send]:
        """What the agent does first; a GPU that is needed is no longer emptied."""
        orders = self._closures.needed(agent.slot, now)
        if decision.action == "wake":
            orders.append(Wake())
        if decision.action != "run":
            orders.append(Load(model))
        return [Send(PEERS, agent.peer, order) for order in orders]

    def _avoided(self, submit: Submit) -> list[int]:
        """GPUs that the client does not want, and those that may hang."""
        named = {agent.slot for name in submit.exclude if (agent := self._agents.get(name))}
        avoided = sorted(named | self._silent)
        if self._silent and len(avoided) == len(self._slots):
            raise OverloadedError("no agent answers", retry_after_ms=self._retry_after_ms)
        return avoided

    def _settle(self, ticket: int) -> None:
        """The placement has shown up or never will: if it is asked for again, it is a new one."""
        key = self._keys.pop(ticket, None)
        if key is None:
            return
        pending = self._pending.get(key)
        if pending is not None and pending.placed.ticket == ticket:
            del self._pending[key]

    def _stands(self, placed: Placed) -> bool:
        agent = self._agents.get(placed.agent)
        return agent is not None and agent.register.epoch == placed.epoch

    # Agents

    def _on_register(self, peer: bytes, register: Register, now: float) -> list[Send]:
        known = self._agents.get(register.agent)
        try:
            if known is not None and known.register.epoch > register.epoch:
                raise BadRequestError(
                    f"a newer agent is called {register.agent!r}",
                    field="agent",
                    expected="another name",
                )
            self._join(peer, register, now)
        except FestinaError as error:
            return [Send(PEERS, peer, Failed("", error.info()))]
        return [Send(PEERS, peer, Welcome(self._epoch, self._summary_ms))]

    def _join(self, peer: bytes, register: Register, now: float) -> None:
        known = self._agents.get(register.agent)
        if known is not None and known.register == register:
            self._hear(known, peer, now)
            return
        if known is not None:
            self._drop(known)
        slot = self._view.add_gpu(
            register.agent,
            register.device,
            register.sms_total,
            register.clocks_mhz,
            register.memory_bytes,
            register.models,
        )
        self._agents[register.agent] = self._slots[slot] = _Agent(slot, register, peer, now)

    def _on_summary(self, peer: bytes, summary: Summary, now: float) -> list[Send]:
        agent = self._agents.get(summary.agent)
        if agent is None or agent.register.epoch != summary.epoch:
            return [Send(PEERS, peer, Reregister(self._epoch))]
        if agent.summary is not None and summary.gpu.seq < agent.summary.seq:
            self._hear(agent, agent.peer, now)
            return []  # overtaken on its way: a newer one has told all that it could
        self._hear(agent, peer, now)
        try:
            self._view.update(agent.slot, summary.gpu)
        except FestinaError as error:
            return [Send(PEERS, peer, Failed("", error.info()))]
        agent.summary = summary.gpu
        agent.account = summary.account or agent.account
        self._closures.told(agent.slot, summary.gpu, now)
        for ticket in summary.gpu.tickets:
            self._settle(ticket)
        return []

    @property
    def _summary_ms(self) -> float:
        return self._pace.wanted_ms(len(self._agents))

    def _hear(self, agent: _Agent, peer: bytes, now: float) -> None:
        agent.peer, agent.heard = peer, now
        self._silent.discard(agent.slot)

    def _drop(self, agent: _Agent) -> None:
        self._silent.discard(agent.slot)
        self._closures.forget(agent.slot)
        self._view.remove_gpu(agent.slot)
        del self._agents[agent.register.agent]
        del self._slots[agent.slot]

    # The consolidator

    def _on_direct(self, peer: bytes, direct: Direct, now: float) -> list[Send]:
        agent = self._agents.get(direct.agent)
        try:
            if not self.active:
                raise SchedulerLostError("this scheduler does not serve", field="agent")
            if agent is None or agent.register.epoch != direct.epoch:
                raise AgentLostError(
                    f"no agent {direct.agent!r} of epoch {direct.epoch}", field="agent"
                )
            self._closures.ordered(agent.slot, direct.plan, direct.order, now)
        except FestinaError as error:
            return [Send(PEERS, peer, Directed(direct.plan, direct.agent, error.info()))]
        answer = Send(PEERS, peer, Directed(direct.plan, direct.agent))
        return [Send(PEERS, agent.peer, self._with_key(direct.order)), answer]

    def _with_key(self, order: Order) -> Order:
        """A move names the keys of its targets, which both the source and the client pin."""
        if not isinstance(order, Migrate):
            return order
        others = (
            replace(other, server_key=self._key_of(other.agent, other.server_key))
            for other in order.others
        )
        key = self._key_of(order.agent, order.server_key)
        return replace(order, server_key=key, others=tuple(others))

    def _key_of(self, agent: str, otherwise: str) -> str:
        known = self._agents.get(agent)
        return otherwise if known is None else known.register.public_key

    def _told_of_consolidation(self, now: float) -> Consolidation | None:
        fresh = now - self._consolidation_at < self._dead_s
        return self._consolidation if fresh else None

    def _cluster(self, now: float) -> Cluster:
        return Cluster(
            self._epoch,
            tuple(
                DeploymentInfo(deployment.name, deployment.slo, deployment.context_tokens)
                for deployment in self._deployments.values()
            ),
            tuple(
                AgentInfo(
                    agent.register.agent,
                    agent.register.epoch,
                    agent.register.device,
                    (now - agent.heard) * 1000,
                    agent.summary,
                    agent.register.endpoint,
                    agent.register.memory_bytes,
                    min(agent.register.clocks_mhz, default=0),
                    max(agent.register.clocks_mhz, default=0),
                    agent.account,
                )
                for agent in self._agents.values()
                if agent.summary is not None
            ),
            self._placed,
            self._refused,
            self._told_of_consolidation(now),
            self.active,
        )
