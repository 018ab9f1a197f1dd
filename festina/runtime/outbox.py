"""Sending to many peers, some of them slow or gone, without ever waiting for one."""

from __future__ import annotations

from collections import deque

from festina.errors import FestinaError, OverloadedError
from festina.messages import AnyMessage
from festina.runtime.transport import Delivery, Link

LAST_WORDS_MAX = 1024
"""Messages kept for a peer that was cut off, so that it learns how its requests ended."""

Lost = tuple[bytes, FestinaError | None]
"""A peer that cannot be reached (None), or was cut off with an error."""


def reads_too_slowly(patience_s: float) -> OverloadedError:
    """Why a client is cut off; it is heard again after `patience_s` at the latest."""
    return OverloadedError(
        "the client reads its tokens too slowly",
        field="client",
        expected="a client that keeps up with its stream",
        retry_after_ms=round(patience_s * 1000),
    )


class Outbox:
    """Sends on a ROUTER. The socket's high-water mark is the buffer of each peer.

    A peer whose buffer is full is cut off: `lost` names it once. What did not fit, and what is said
    to it afterwards, is kept within `LAST_WORDS_MAX` until it reads again or `patience_s` are over.

    Args:
        link: The ROUTER; owned by the caller.
        patience_s: How long to try to deliver last words.
    """

    def __init__(self, link: Link, patience_s: float) -> None:
        self._link = link
        self._patience_s = patience_s
        self._lost: list[Lost] = []
        self._last_words: dict[bytes, deque[AnyMessage]] = {}
        self._give_up_at: dict[bytes, float] = {}

    def send(self, peer: bytes, message: AnyMessage, now: float) -> None:
        """Send, or keep, or note that the peer is lost."""
        if peer in self._last_words:
            self._keep(peer, message)
            return
        match self._link.send(message, peer):
            case Delivery.UNREACHABLE:
                self._lost.append((peer, None))
            case Delivery.FULL:
                self._last_words[peer] = deque([message])
                self._give_up_at[peer] = now + self._patience_s
                self._lost.append((peer, reads_too_slowly(self._patience_s)))
            case Delivery.SENT:
                pass

    def lost(self) -> list[Lost]:
        """Peers lost since the last call."""
        lost, self._lost = self._lost, []
        return lost

    def retry(self, now: float) -> None:
        """Try to deliver last words."""
        for peer in list(self._last_words):
            words = self._last_words[peer]
            while words and (delivery := self._link.send(words[0], peer)) is not Delivery.FULL:
                words.popleft()
                if delivery is Delivery.UNREACHABLE:
                    words.clear()
            if not words or now >= self._give_up_at[peer]:
                del self._last_words[peer], self._give_up_at[peer]

    def _keep(self, peer: bytes, message: AnyMessage) -> None:
        words = self._last_words[peer]
        if len(words) < LAST_WORDS_MAX:
            words.append(message)
