"""The client's side of its links: which agents are alive, and a question to the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field

from festina.config import LinkConfig
from festina.errors import SchedulerLostError
from festina.messages import AnyMessage, GetCluster, Ping
from festina.runtime.protocol.client_effects import (
    SCHEDULER,
    STANDBY,
    ClientLimits,
    Effect,
    TellCluster,
)
from festina.runtime.protocol.effects import Send

NEVER = float("-inf")


@dataclass(slots=True)
class AgentLink:
    """A link to an agent.

    Attributes:
        endpoint: Where it listens.
        epoch: The newest that was heard of.
        used: When a request was last given to it or taken from it.
        pinged: When it was last asked whether it is there.
        unanswered: When the oldest ping without an answer was sent.
        request_ids: Requests that it has.
    """

    endpoint: str
    epoch: int
    used: float
    pinged: float = NEVER
    unanswered: float | None = None
    request_ids: set[str] = field(default_factory=set)

    def send(self, message: AnyMessage) -> Send:
        """A message to it."""
        return Send("agents", self.endpoint.encode(), message)


class Heartbeats:
    """Pings to the agents that have requests.

    Args:
        link: Interval, and how many may be missed.
    """

    def __init__(self, link: LinkConfig) -> None:
        self._interval_s = link.heartbeat_s
        self._dead_s = link.heartbeat_s * link.missed_max
        self._nonce = 0

    def is_dead(self, agent: AgentLink, now: float) -> bool:
        """Whether it has left pings unanswered for too long."""
        return agent.unanswered is not None and now - agent.unanswered >= self._dead_s

    def beat(self, agent: AgentLink, now: float) -> list[Effect]:
        """A ping, if it is time for one."""
        if now - agent.pinged < self._interval_s:
            return []
        agent.pinged = now
        if agent.unanswered is None:
            agent.unanswered = now
        self._nonce += 1
        return [agent.send(Ping(self._nonce))]


class Schedulers:
    """Whom to ask: the scheduler that answered last, and all of them if it does not.

    Args:
        standby: There are two.
    """

    def __init__(self, *, standby: bool) -> None:
        self._peers = (SCHEDULER, STANDBY) if standby else (SCHEDULER,)
        self._current = SCHEDULER

    def __contains__(self, peer: bytes) -> bool:
        return peer in self._peers

    @property
    def alone(self) -> bool:
        """Whether there is but one."""
        return len(self._peers) == 1

    def answered(self, peer: bytes) -> None:
        """This one serves."""
        self._current = peer

    def ask(self, message: AnyMessage) -> Send:
        """To the one that serves, as far as is known."""
        return Send("scheduler", self._current, message)

    def ask_all(self, message: AnyMessage) -> list[Send]:
        """To all: the one that serves may have changed."""
        return [Send("scheduler", peer, message) for peer in self._peers]


class ClusterQuestion:
    """What the cluster looks like: asked of the scheduler until it answers, or for too long.

    Args:
        limits: Bounds.
        schedulers: Whom to ask.
    """

    def __init__(self, limits: ClientLimits, schedulers: Schedulers) -> None:
        self._limits = limits
        self._schedulers = schedulers
        self._since: float | None = None
        self._asked = 0.0

    @property
    def open(self) -> bool:
        """Whether an answer is waited for."""
        return self._since is not None

    def ask(self, now: float) -> list[Effect]:
        """Ask, or ask again."""
        first = self._since is None
        if self._since is None:
            self._since = now
        self._asked = now
        if first:
            return [self._schedulers.ask(GetCluster())]
        return [*self._schedulers.ask_all(GetCluster())]

    def answered(self) -> None:
        """The answer has come."""
        self._since = None

    def watch(self, now: float) -> list[Effect]:
        """Ask again, or give up, if it is time."""
        if self._since is None:
            return []
        if now - self._since >= self._limits.answer_timeout_s:
            self._since = None
            return [TellCluster(SchedulerLostError("the scheduler does not answer"))]
        if now - self._asked < self._limits.resend_s:
            return []
        return self.ask(now)
