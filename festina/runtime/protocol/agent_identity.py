"""Who an agent is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """Who this agent is.

    Attributes:
        agent: Name.
        epoch: New, and larger, for every process that bears this name.
        endpoint: Where it listens to clients.
        public_key: Key that they pin; "" without keys.
        host: Names its host, for agents that could share memory with it; "" shares none.
    """

    agent: str
    epoch: int
    endpoint: str
    public_key: str = ""
    host: str = ""
