"""Requests that have moved here, and the clients that follow them.

A client may ask again for what it has missed, for a while even after the end; a request whose
client does not come is given up.
"""

from __future__ import annotations

from festina.messages import Attached
from festina.runtime.protocol.agent_effects import Effect
from festina.runtime.protocol.agent_links import CLIENTS
from festina.runtime.protocol.agent_requests import Request
from festina.runtime.protocol.agent_transfers import Transfers
from festina.runtime.protocol.effects import Send


class Followers:
    """By the key of the move that brought them.

    Args:
        transfers: Puts requests into the books.
        client_timeout_s: How long a request waits for its client, and a client may ask again.
    """

    def __init__(self, transfers: Transfers, client_timeout_s: float) -> None:
        self._transfers = transfers
        self._timeout_s = client_timeout_s
        self._here: dict[str, tuple[Request, float]] = {}

    def __len__(self) -> int:
        return len(self._here)

    def add(self, key: str, request: Request, outputs: int, now: float) -> list[Effect]:
        """A request has come; its client has these outputs, or will from where it came from."""
        self._here[key] = request, now
        if not request.attached:
            return []
        return [Send(CLIENTS, request.peer, Attached(request.request_id, key, outputs))]

    def attach(
        self, key: str, request_id: str, peer: bytes, received: int, now: float
    ) -> list[Effect]:
        """Its client asks for what it has not got; [] if there is no such request."""
        request, _ = self._here.get(key, (None, now))
        if request is None or request.replay is None or request.request_id != request_id:
            return []
        if request.replay.ended_at is None:
            self._transfers.rename(request, peer, now)
            request.attached = True
        missing = request.replay.after(received)
        first = Attached(request_id, key, received)
        return [Send(CLIENTS, peer, message) for message in (first, *missing)]

    def other(self, key: str, client: bytes, request_id: str) -> bool:
        """Whether this client has another request of this name here."""
        request, _ = self._here.get(key, (None, 0.0))
        known = self._transfers.serving.requests.find(client, request_id)
        return known is not None and known is not request

    def drop(self, key: str, now: float) -> list[Effect]:
        """Nobody wants it."""
        request, _ = self._here.pop(key, (None, now))
        serving = self._transfers.serving
        if request is None or not serving.requests.active(request.number):
            return []
        return serving.cancel(request.peer, request.request_id, now)

    def on_timer(self, now: float) -> list[Effect]:
        """Forget those that ended a while ago, give up those whose clients have not come."""
        effects: list[Effect] = []
        for key, (request, since) in list(self._here.items()):
            ended_at = None if request.replay is None else request.replay.ended_at
            if ended_at is not None:
                if now - ended_at > self._timeout_s:
                    del self._here[key]
            elif not self._transfers.serving.requests.active(request.number):
                del self._here[key]  # it has moved on
            elif not request.attached and now - since > self._timeout_s:
                effects += self.drop(key, now)
        return effects
