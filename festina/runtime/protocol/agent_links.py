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
CLIENTS = "clients"


class SchedulerLink:
    """Registers until welcomed, notices a scheduler that is gone or new, answers its pings.

    Args:
        register: What to say when joining.
        link: Heartbeats.
    """

    def __init__(self, register: Register, link: LinkConfig) -> None:
        self._register = register
        self._heartbeat_s = link.heartbeat_s
        self._silence_s = link.heartbeat_s * link.missed_max
        self._scheduler_epoch: int | None = None
        self._heard_at = 0.0
        self._next_at = 0.0
        self._nonce = 0

    @property
    def welcome(self) -> bool:
        """Whether the scheduler knows this agent, as far as can be told."""
        return self._scheduler_epoch is not None

    @property
    def next_timer(self) -> float:
        """When `on_timer` has something to do."""
        return self._next_at

    def on_message(self, message: AnyMessage, now: float) -> list[Send]:
        """React to registration and heartbeats; other messages only count as a sign of life."""
        self._heard_at = now
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

    @staticmethod
    def _send(message: AnyMessage) -> Send:
        return Send(SCHEDULER, b"", message)


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
