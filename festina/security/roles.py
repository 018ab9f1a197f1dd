"""What each role may say (DESIGN section 5, promise 5).

The tables name what a peer may send to a socket that we bind. What we hear on a socket that we
connected is from the server whose public key we pinned, so it needs no table.
"""

from __future__ import annotations

import enum
from typing import get_args

from festina.errors import NotAllowedError
from festina.messages import (
    Abandon,
    AnyMessage,
    Attach,
    Cancel,
    Consolidation,
    Direct,
    Follow,
    Generate,
    GetCluster,
    Handover,
    KvBlocks,
    Leave,
    Offer,
    Ping,
    Pong,
    Probe,
    Register,
    Submit,
    Summary,
)


class Role(enum.StrEnum):
    """What the owner of a key is.

    `CLIENT` asks for text. `AGENT` serves on a GPU. `OPERATOR` directs the cluster, as the
    consolidator does. `SCHEDULER` may do all of it, for it could anyway.
    """

    CLIENT = "client"
    AGENT = "agent"
    OPERATOR = "operator"
    SCHEDULER = "scheduler"


_CLIENT = frozenset({Submit, GetCluster, Generate, Probe, Cancel, Attach, Ping, Pong})
_MOVES = frozenset({Offer, KvBlocks, Follow, Handover, Abandon})
_AGENT = frozenset({Register, Summary, Leave, Ping, Pong, GetCluster}) | _MOVES
_ALLOWED: dict[Role, frozenset[type]] = {
    Role.CLIENT: _CLIENT,
    Role.AGENT: _AGENT,
    Role.OPERATOR: _CLIENT | {Direct, Consolidation},
    Role.SCHEDULER: frozenset(get_args(AnyMessage)),
}


def allowed(role: Role) -> frozenset[type]:
    """The messages that this role may send."""
    return _ALLOWED[role]


def check_allowed(name: str, role: Role, message: AnyMessage) -> None:
    """Whether the owner of a key may send this.

    An agent speaks for itself only: for the name of its key, or that name, a dash and more where
    one key serves the GPUs of a machine.

    Args:
        name: Name of the key.
        role: Its role.
        message: What its owner sent.

    Raises:
        NotAllowedError: It may not.
    """
    if type(message) not in _ALLOWED[role]:
        kinds = ", ".join(sorted(kind.__name__ for kind in _ALLOWED[role]))
        raise NotAllowedError(
            f"{name!r} is a key for a {role}, which sends no {type(message).__name__}",
            field="frame",
            expected=kinds,
        )
    if role is Role.AGENT and isinstance(message, Register | Summary | Leave):
        agent = message.agent
        if agent != name and not agent.startswith(f"{name}-"):
            raise NotAllowedError(
                f"the key {name!r} is not that of agent {agent!r}",
                field="agent",
                expected=f"{name} or {name}-…",
            )
