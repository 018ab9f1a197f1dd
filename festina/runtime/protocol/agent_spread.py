"""Which of several agents each request of an order goes to (DESIGN 4.3). Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec.structs import replace

from festina.control.migration import assign
from festina.messages import Migrate, MoveTarget

SPREAD_MAX = 1024
"""Requests that one order spreads, so that it takes milliseconds; it is said again for the rest."""


def spread(
    migrate: Migrate, kv_bytes: Sequence[float], bytes_per_s: Callable[[str], float]
) -> list[Migrate | None]:
    """The order of each request, for one agent: the Hungarian method on bytes over bandwidth.

    Args:
        migrate: For all of them.
        kv_bytes: Per request, what a copy of its KV cache has to move; those beyond `SPREAD_MAX`
            stay, where there is a choice.
        bytes_per_s: What a copy to an endpoint gets through.

    Returns:
        Per request its order; None where no agent has room for it: it stays.
    """
    if not migrate.others:
        return [migrate] * len(kv_bytes)
    targets = [_first(migrate), *migrate.others]
    rates = np.array([bytes_per_s(target.endpoint) for target in targets])
    sizes, rooms = kv_bytes[:SPREAD_MAX], [target.room for target in targets]
    where = assign(sizes, np.tile(rates, (len(sizes), 1)), rooms)
    orders = [_to(migrate, target) for target in targets]
    chosen = [None if place is None else orders[place] for place in where]
    return chosen + [None] * (len(kv_bytes) - len(sizes))


def _first(migrate: Migrate) -> MoveTarget:
    return MoveTarget(
        migrate.agent, migrate.epoch, migrate.endpoint, migrate.room, migrate.server_key
    )


def _to(migrate: Migrate, target: MoveTarget) -> Migrate:
    return replace(
        migrate,
        agent=target.agent,
        epoch=target.epoch,
        endpoint=target.endpoint,
        server_key=target.server_key,
        room=0,
        others=(),
    )
