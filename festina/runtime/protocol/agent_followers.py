"""Requests that have moved here, and the clients that follow them.

A client may ask again for what it has missed, for a while even after the end; a request whose
client does not come is given up.
"""

from __future__ import annotations

from dataclasses import dataclass

from festina.messages import Attached
from festina.runtime.protocol.agent_effects import Effect
from festina.runtime.protocol.agent_links import CLIENTS
from festina.runtime.protocol.agent_requests import Request
from festina.runtime.protocol.agent_transfers import Transfers
from festina.runtime.protocol.effects import Send


@dataclass(slots=True)
class _Follower:
    """A request that came, when it did, and since when it is elsewhere; it may be handed back."""

    request: Request
    since: float
    away_at: float | None = None


class Followers:
    """By the key of the move that brought them.

    Args:
        transfers: Puts requests into the books.
        client_timeout_s: How long a request waits for its client, and a client may ask again.
    """

    def __init__(self, transfers: Transfers, client_timeout_s: float) -> None:
        self._transfers = transfers
        self._timeout_s = client_timeout_s
        self._here: dict[str, _Follower] = {}

    def __len__(self) -> int:
        return len(self._here)

    def add(self, key: str, request: Request, outputs: int, now: float) -> list[Effect]:
        """A request has come; its client has these outputs, or will from where it came from."""
        self._here[key] = _Follower(request, now)
        if not request.attached:
            return []
        return [Send(CLIENTS, request.peer, Attached(request.request_id, key, outputs))]

    def attach(
        self, key: str, request_id: str, peer: bytes, received: int, now: float
    ) -> list[Effect]:
        """Its client asks for what it has not got; [] if there is no such request."""
        follower = self._here.get(key)
        if follower is None or follower.request.request_id != request_id:
            return []
        request = follower.request
        replay = request.replay
        if replay is None:
            raise AssertionError(f"{request_id} has moved here and is not replayed")
        if replay.ended_at is None:
            if not self._transfers.serving.requests.active(request.number):
                return self._transfers.gone_to(request, peer)
            self._transfers.rename(request, peer, now)
            request.attached = True
        missing = replay.after(received)
        first = Attached(request_id, key, min(received, replay.outputs))
        return [Send(CLIENTS, peer, message) for message in (first, *missing)]

    def other(self, key: str, client: bytes, request_id: str) -> bool:
        """Whether this client has another request of this name here."""
        follower = self._here.get(key)
        known = self._transfers.serving.requests.find(client, request_id)
        return known is not None and (follower is None or known is not follower.request)

    def drop(self, key: str, now: float) -> list[Effect]:
        """Nobody wants it."""
        follower = self._here.pop(key, None)
        serving = self._transfers.serving
        if follower is None or not serving.requests.active(follower.request.number):
            return []
        return serving.cancel(follower.request.peer, follower.request.request_id, now)

    def on_timer(self, now: float) -> list[Effect]:
        """Forget those that went or ended a while ago, give up those whose clients do not come."""
        effects: list[Effect] = []
        for key, follower in list(self._here.items()):
            request = follower.request
            ended_at = None if request.replay is None else request.replay.ended_at
            if ended_at is None and not self._transfers.serving.requests.active(request.number):
                follower.away_at = now if follower.away_at is None else follower.away_at
                ended_at = follower.away_at
            else:
                follower.away_at = None
            if ended_at is not None:
                if now - ended_at > self._timeout_s:
                    del self._here[key]
            elif not request.attached and now - follower.since > self._timeout_s:
                effects += self.drop(key, now)
        return effects
