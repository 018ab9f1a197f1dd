"""An agent's links to the agents that it gives requests to: opened, kept alive, closed."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from festina.config import LinkConfig
from festina.messages import Ping
from festina.runtime.protocol.agent_effects import Effect
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.move_effects import AGENTS, ConnectAgent, DisconnectAgent

IDLE_S = 10.0
"""How long a link is kept that no move uses."""


@dataclass(slots=True)
class _Peer:
    heard_at: float
    pinged_at: float
    used_at: float


class AgentPeers:
    """Links by the endpoint that they go to.

    Args:
        link: Heartbeats.
    """

    def __init__(self, link: LinkConfig) -> None:
        self._heartbeat_s = link.heartbeat_s
        self._silence_s = link.heartbeat_s * link.missed_max
        self._peers: dict[str, _Peer] = {}
        self._nonce = 0

    @property
    def any(self) -> bool:
        """Whether there is a link."""
        return bool(self._peers)

    def open(self, endpoint: str, server_key: str, now: float) -> list[Effect]:
        """A move begins that needs a link there."""
        peer = self._peers.get(endpoint)
        if peer is None:
            self._peers[endpoint] = _Peer(heard_at=now, pinged_at=now, used_at=now)
            return [ConnectAgent(endpoint, server_key)]
        if now - peer.used_at > self._heartbeat_s:  # it was not pinged meanwhile
            peer.heard_at = now
        peer.used_at = now
        return []

    def heard(self, endpoint: str, now: float) -> None:
        """A sign of life."""
        if endpoint in self._peers:
            self._peers[endpoint].heard_at = now

    def silent(self, endpoint: str, now: float) -> bool:
        """Whether it has been silent for too long."""
        return now - self._peers[endpoint].heard_at > self._silence_s

    def on_timer(self, in_use: AbstractSet[str], now: float) -> list[Effect]:
        """Pings to those in use; links that have been idle are closed."""
        effects: list[Effect] = []
        for endpoint, peer in list(self._peers.items()):
            if endpoint not in in_use:
                if now - peer.used_at > IDLE_S:
                    del self._peers[endpoint]
                    effects.append(DisconnectAgent(endpoint))
                continue
            peer.used_at = now
            if now - peer.pinged_at >= self._heartbeat_s:
                peer.pinged_at = now
                self._nonce += 1
                effects.append(Send(AGENTS, endpoint.encode(), Ping(self._nonce)))
        return effects
