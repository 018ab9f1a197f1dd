"""The requests of one agent, from `Generate` to their one end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from festina.control.sequence import Sequence
from festina.engine.stream import OutputText
from festina.messages import Generate
from festina.runtime.protocol.agent_replay import Replay
from festina.types import Logprobs

ENDED_MAX = 4096
"""Ended requests that are remembered, so that a repeated `Generate` does not run twice."""


@dataclass(slots=True, eq=False)
class Request:
    """A request that has not ended.

    Attributes:
        number: Order of arrival; also its sequence's number.
        peer: Client it belongs to.
        message: What it asked for.
        arrived_at: When it came.
        sequence: Its sequence; None while its model is on the way.
        decoder: Turns its tokens into text; None while its model is on the way.
        losses: Steps of it in which the engine was lost since its last token.
        carried_j: Joules that it has used at other agents.
        carried_modelled: Some of these are modelled.
        moves: How often it has moved.
        replay: What its client has been told; None unless it has moved here.
        attached: Its client can be told; else `peer` is a stand-in until it comes.
        begun: It has been in a step here.
        speaks: It has given a token here.
        logprobs: How likely each token of the output was, None for those that another agent sent;
            empty unless its client asked.
    """

    number: int
    peer: bytes
    message: Generate
    arrived_at: float
    sequence: Sequence | None = None
    decoder: OutputText | None = None
    losses: int = 0
    carried_j: float = 0.0
    carried_modelled: bool = False
    moves: int = 0
    replay: Replay | None = None
    attached: bool = True
    begun: bool = False
    speaks: bool = False
    logprobs: list[Logprobs | None] = field(default_factory=list)

    @property
    def submitted_at(self) -> float:
        """When its client asked, in seconds of the agent's clock."""
        if self.sequence is not None:
            return self.sequence.submitted_at
        return self.arrived_at - self.message.elapsed_ms / 1e3

    @property
    def request_id(self) -> str:
        """The client's name for it; unique per client only."""
        return self.message.request_id


class RequestBook:
    """Finds requests by number, by name and by client. Ended ones leave it exactly once."""

    def __init__(self) -> None:
        self._by_number: dict[int, Request] = {}
        self._by_name: dict[tuple[bytes, str], Request] = {}
        self._by_peer: dict[bytes, set[int]] = {}
        self._ended: OrderedDict[tuple[bytes, str], int] = OrderedDict()
        self._opened = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._by_number.values()))

    def open(self, peer: bytes, message: Generate, now: float) -> Request:
        """A new request. Its name must not be active."""
        request = Request(self.new_number(), peer, message, now)
        self.admit(request)
        return request

    def new_number(self) -> int:
        """The number of the next request."""
        self._opened += 1
        return self._opened

    def admit(self, request: Request) -> None:
        """Put in a request from elsewhere. Its number and name must not be active."""
        self._by_number[request.number] = request
        self._by_name[request.peer, request.request_id] = request
        self._by_peer.setdefault(request.peer, set()).add(request.number)

    def rename(self, request: Request, peer: bytes) -> bool:
        """It belongs to another peer now, which has no active request of this name.

        Returns:
            Whether the peer that had it has no other request here.
        """
        last = self._take_out(request)
        request.peer = peer
        self.admit(request)
        return last

    def end(self, request: Request) -> bool:
        """Take it out.

        Returns:
            Whether its client has no other request here.
        """
        last = self._take_out(request)
        self._ended[request.peer, request.request_id] = request.message.ticket
        self._ended.move_to_end((request.peer, request.request_id))
        if len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)
        return last

    def _take_out(self, request: Request) -> bool:
        del self._by_number[request.number]
        del self._by_name[request.peer, request.request_id]
        numbers = self._by_peer[request.peer]
        numbers.remove(request.number)
        if not numbers:
            del self._by_peer[request.peer]
        return not numbers

    def active(self, number: int) -> bool:
        """Whether this request has not ended."""
        return number in self._by_number

    def get(self, number: int) -> Request:
        """The active request with this number."""
        return self._by_number[number]

    def find(self, peer: bytes, request_id: str) -> Request | None:
        """The client's active request of this name."""
        return self._by_name.get((peer, request_id))

    def has_ended(self, peer: bytes, message: Generate) -> bool:
        """Whether this placement of the request, or a later one, has ended lately."""
        return message.ticket <= self._ended.get((peer, message.request_id), -1)

    def of_peer(self, peer: bytes) -> list[Request]:
        """The client's active requests, oldest first."""
        return [self._by_number[number] for number in sorted(self._by_peer.get(peer, ()))]

    def of_model(self, model: str) -> list[Request]:
        """Requests for a deployment, oldest first."""
        return [item for item in self._by_number.values() if item.message.model == model]

    def waiting_for(self, model: str) -> list[Request]:
        """Requests whose model is on the way, oldest first."""
        return [
            request
            for request in self._by_number.values()
            if request.sequence is None and request.message.model == model
        ]
