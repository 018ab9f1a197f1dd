"""What a scheduler that falls behind does first: it answers, and takes summaries in afterwards.

Summaries come by the ten thousand a second and each replaces the one before, so those that have not
been taken in yet are merged. Nothing that one peer says overtakes anything else that it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Protocol

from msgspec.structs import replace

from festina.errors import ProtocolError
from festina.messages import AnyMessage, Summary
from festina.runtime.protocol.effects import Send

SUMMARIES_MAX = 128
"""Summaries taken in between two looks at what else has come: a millisecond."""

TICKETS_MAX = 4096
"""Tickets in a summary that waits; one that would have more is not merged."""

Received = tuple[bytes, AnyMessage | ProtocolError]
"""Who sent it, and what: a message, or why it is none."""


class Taker(Protocol):
    """What messages are for; see `SchedulerLogic`."""

    def on_message(
        self, peer: bytes, message: AnyMessage | ProtocolError, now: float
    ) -> list[Send]:
        """What to send in answer."""

    def hear(self, peers: Set[bytes], merged: int, now: float) -> None:
        """These peers have said something that waits; so many summaries were merged meanwhile."""


class Intake:
    """Hands messages to a scheduler's logic: summaries last, each peer's in its order.

    Args:
        logic: Takes them.
    """

    def __init__(self, logic: Taker) -> None:
        self._logic = logic
        self._waiting: dict[bytes, Summary] = {}
        self._merged = 0

    @property
    def behind(self) -> bool:
        """Whether summaries wait: `catch_up` has something to do."""
        return bool(self._waiting)

    def serve(self, received: Iterable[Received], now: float) -> list[Send]:
        """Take all but summaries, which wait, and answer.

        A summary goes before what its sender says next, so it is taken here if that has come.
        """
        sends: list[Send] = []
        for peer, message in received:
            for first in self._first(peer, message):
                sends += self._logic.on_message(peer, first, now)
        return sends

    def catch_up(self, now: float) -> list[Send]:
        """Take some summaries, of those peers that have waited longest; to be called again."""
        sends: list[Send] = []
        for peer in list(self._waiting)[:SUMMARIES_MAX]:
            sends += self._logic.on_message(peer, self._waiting.pop(peer), now)
        return sends

    def report(self, now: float) -> None:
        """Before the logic looks who is silent: nobody is whose summary waits."""
        self._logic.hear(self._waiting.keys(), self._merged, now)
        self._merged = 0

    def _first(
        self, peer: bytes, message: AnyMessage | ProtocolError
    ) -> list[AnyMessage | ProtocolError]:
        """What of this peer to take now, in this order."""
        waiting = self._waiting.get(peer)
        if not isinstance(message, Summary):
            if waiting is None:
                return [message]
            del self._waiting[peer]
            return [waiting, message]
        if waiting is None:
            self._waiting[peer] = message
            return []
        merged = merge(waiting, message)
        if merged is None:
            self._waiting[peer] = message
            return [waiting]
        self._waiting[peer] = merged
        self._merged += 1
        return []


def merge(earlier: Summary, later: Summary) -> Summary | None:
    """One summary that tells what these two tell, or None where none can.

    All in a summary replaces what was, but for tickets, which add up, and the account, which only
    some have.
    """
    if (earlier.agent, earlier.epoch) != (later.agent, later.epoch):
        return None
    if later.gpu.seq < earlier.gpu.seq:
        return None
    tickets = earlier.gpu.tickets + later.gpu.tickets
    if len(tickets) > TICKETS_MAX:
        return None
    account = later.account or earlier.account
    if len(tickets) == len(later.gpu.tickets) and account is later.account:
        return later
    return replace(later, gpu=replace(later.gpu, tickets=tickets), account=account)
