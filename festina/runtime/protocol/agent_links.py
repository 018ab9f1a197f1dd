"""The agent's side of its links: registration at the scheduler, and which clients are alive."""

from __future__ import annotations

from festina.config import LinkConfig
from festina.messages import (
    AnyMessage,
    Ping,
    Pong,
    Register,
    Reregister,
    Welcome,
)
from festina.runtime.protocol.effects import Send

SCHEDULER = "scheduler"
STANDBY = "standby"
CLIENTS = "clients"


class SchedulerLink:
    """Registers until welcomed, notices a scheduler that is gone or new, answers its pings.

    Args:
        register: What to say when joining.
        link: Heartbeats.
        name: Which link it is.
    """

    def __init__(self, register: Register, link: LinkConfig, name: str = SCHEDULER) -> None:
        self._name = name
        self._register = register
        self._heartbeat_s = link.heartbeat_s
        self._silence_s = link.heartbeat_s * link.missed_max
        self._scheduler_epoch: int | None = None
        self._summary_s = 0.0
        self._heard_at = 0.0
        self._next_at = 0.0
        self._nonce = 0

    @property
    def welcome(self) -> bool:
        """Whether the scheduler knows this agent, as far as can be told."""
        return self._scheduler_epoch is not None

    @property
    def summary_s(self) -> float:
        """How far apart the scheduler wants summaries, at least; a heartbeat at most."""
        return self._summary_s if self.welcome else 0.0

    @property
    def next_timer(self) -> float:
        """When `on_timer` has something to do."""
        return self._next_at

    def on_message(self, message: AnyMessage, now: float) -> list[Send]:
        """React to registration and heartbeats; other messages only count as a sign of life."""
        self._heard_at = now
        if isinstance(message, Welcome | Pong):
            self._summary_s = min(message.summary_ms / 1e3, self._heartbeat_s)
        if isinstance(message, Welcome):
            self._scheduler_epoch = message.scheduler_epoch
        elif isinstance(message, Reregister):
            return self._join(now)
        elif isinstance(message, Ping):
            return [self._send(Pong(message.nonce, self._register.epoch))]
        elif isinstance(message, Pong) and self.welcome and message.epoch != self._scheduler_epoch:
            return self._join(now)  # another process answers under the old address
        return []

    def on_timer(self, now: float) -> list[Send]:
        """Heartbeat: register while unknown, else ping."""
        if now < self._next_at:
            return []
        if not self.welcome or now - self._heard_at > self._silence_s:
            return self._join(now)
        self._next_at = now + self._heartbeat_s
        self._nonce += 1
        return [self._send(Ping(self._nonce))]

    def _join(self, now: float) -> list[Send]:
        self._scheduler_epoch = None
        self._next_at = now + self._heartbeat_s
        return [self._send(self._register)]

    def _send(self, message: AnyMessage) -> Send:
        return Send(self._name, b"", message)


class SchedulerLinks:
    """The links to the scheduler and to its standby: both know this agent alike.

    Args:
        register: What to say when joining.
        link: Heartbeats.
        standby: There is one.
    """

    def __init__(self, register: Register, link: LinkConfig, *, standby: bool) -> None:
        names = (SCHEDULER, STANDBY) if standby else (SCHEDULER,)
        self._links = {name: SchedulerLink(register, link, name) for name in names}

    def __contains__(self, name: str) -> bool:
        return name in self._links

    @property
    def welcome(self) -> bool:
        """Whether any of them knows this agent."""
        return any(link.welcome for link in self._links.values())

    @property
    def summary_s(self) -> float:
        """As `SchedulerLink.summary_s`: what the one that is busier wants."""
        return max(link.summary_s for link in self._links.values())

    @property
    def next_timer(self) -> float:
        """When `on_timer` has something to do."""
        return min(link.next_timer for link in self._links.values())

    def on_message(self, name: str, message: AnyMessage, now: float) -> tuple[list[Send], bool]:
        """As `SchedulerLink.on_message`; and whether that one has come to know this agent."""
        link = self._links[name]
        joining = not link.welcome
        return link.on_message(message, now), joining and link.welcome

    def on_timer(self, now: float) -> list[Send]:
        """As `SchedulerLink.on_timer`."""
        return [send for link in self._links.values() for send in link.on_timer(now)]

    def tell(self, message: AnyMessage) -> list[Send]:
        """To all that know this agent."""
        return [Send(name, b"", message) for name, link in self._links.items() if link.welcome]

    def tell_all(self, message: AnyMessage) -> list[Send]:
        """To all, whether they know this agent or not."""
        return [Send(name, b"", message) for name in self._links]


class ClientRoster:
    """Clients that have requests here, and when they were last heard.

    Args:
        heartbeat_s: Interval of pings to them.
        timeout_s: Silence after which one is taken for gone.
    """

    def __init__(self, heartbeat_s: float, timeout_s: float) -> None:
        self._heartbeat_s = heartbeat_s
        self._timeout_s = timeout_s
        self._heard_at: dict[bytes, float] = {}
        self._next_at = 0.0
        self._nonce = 0

    @property
    def next_timer(self) -> float:
        """When `on_timer` has something to do."""
        return self._next_at if self._heard_at else float("inf")

    def join(self, peer: bytes, now: float) -> None:
        """`peer` has a request here."""
        if not self._heard_at:
            self._next_at = now + self._heartbeat_s
        self._heard_at[peer] = now

    def leave(self, peer: bytes) -> None:
        """`peer` has no request here any more."""
        self._heard_at.pop(peer, None)

    def heard(self, peer: bytes, now: float) -> None:
        """`peer` gave a sign of life."""
        if peer in self._heard_at:
            self._heard_at[peer] = now

    def on_timer(self, now: float) -> tuple[list[Send], list[bytes]]:
        """Pings to send, and the clients that are gone."""
        if now < self.next_timer:
            return [], []
        self._next_at = now + self._heartbeat_s
        self._nonce += 1
        gone = [peer for peer, at in self._heard_at.items() if now - at > self._timeout_s]
        pings = [
            Send(CLIENTS, peer, Ping(self._nonce)) for peer in self._heard_at if peer not in gone
        ]
        return pings, gone
