"""Requests that other agents give to this one.

It answers for a request from the moment it has `Handover`, and until then never: whoever asks is
told to wait (a client that has come too early) or that there is no such move. What was refused once
is refused for good, so that the source can go on with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from festina.config import LinkConfig
from festina.errors import (
    AgentLostError,
    ErrorInfo,
    FestinaError,
    OverloadedError,
    ProtocolError,
)
from festina.messages import (
    Abandon,
    Attach,
    Declined,
    Failed,
    Follow,
    Handover,
    KvBlocks,
    Offer,
    Ready,
    Taken,
)
from festina.runtime.protocol.agent_effects import Effect
from festina.runtime.protocol.agent_followers import Followers
from festina.runtime.protocol.agent_links import CLIENTS
from festina.runtime.protocol.agent_move_in import MoveIn
from festina.runtime.protocol.agent_offers import check_handover, open_move
from festina.runtime.protocol.agent_transfers import Transfers
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.move_effects import EndMove, ImportBlocks
from festina.runtime.protocol.remembered import Remembered
from festina.runtime.protocol.request_notes import note

FromSource = Offer | KvBlocks | Follow | Handover | Abandon
"""What sources say."""

INCOMING_MAX = 256


@dataclass(frozen=True, slots=True)
class MoveTarget:
    """Who takes requests.

    Attributes:
        epoch: Of this agent; offers to another one are declined.
        host: Names its host; "" shares no memory.
        link: Heartbeats.
        client_timeout_s: How long a request waits for its client, and a client may ask again.
    """

    epoch: int
    host: str
    link: LinkConfig
    client_timeout_s: float


class MovesIn:
    """All moves to one agent.

    Args:
        target: Who it is.
        transfers: Puts requests into the books.
    """

    def __init__(self, target: MoveTarget, transfers: Transfers) -> None:
        self._target = target
        self._transfers = transfers
        self._silence_s = target.link.heartbeat_s * target.link.missed_max
        self._patience_s = self._tick_s = target.link.heartbeat_s / 2
        self._tick = 0.0
        self._incoming: dict[str, MoveIn] = {}
        self._freeing: dict[str, MoveIn] = {}
        self._here = Followers(transfers, target.client_timeout_s)
        self._over: Remembered[str, bool] = Remembered()

    @property
    def incoming(self) -> int:
        """Moves that have not been handed over."""
        return len(self._incoming)

    @property
    def next_timer(self) -> float:
        """When `on_timer` has something to do."""
        return self._tick if self._incoming or self._here else float("inf")

    def heard(self, peer: bytes, now: float) -> None:
        """A source, or anyone else, gave a sign of life."""
        for move in self._incoming.values():
            if move.peer == peer:
                move.heard_at = now

    def on_message(self, peer: bytes, message: FromSource, now: float) -> list[Effect]:
        """A source says something."""
        move = self._incoming.get(message.key)
        if move is None:
            return self._unknown(peer, message, now)
        move.peer, move.heard_at = peer, now
        match message:
            case Offer():
                return [self._ready(move)]
            case KvBlocks():
                move.inbox.take(message)
            case Follow():
                move.follow(message)
            case Handover() if move.handover is None:
                return self._receive(move, message, now)
            case Abandon():
                error = AgentLostError("the move was given up", field="key")
                return self._refuse(move, error, now)
        return []

    def on_imported(
        self, effect: ImportBlocks, error: FestinaError | None, now: float
    ) -> list[Effect]:
        """Blocks are in the pool, or why not."""
        freed = self._freeing.pop(effect.key, None)
        if freed is not None:
            self._give_back(freed, now)
            return []
        move = self._incoming.get(effect.key)
        if move is None:  # the blocks were lost, and the request goes on without them
            return []
        if error is None:
            move.inbox.done()
        elif move.handover is None:
            move.inbox.importing = 0
            return self._refuse(move, error, now)
        else:
            move.inbox.importing = 0
            move.full = True
        return []

    def on_engine_lost(self, now: float) -> list[Effect]:
        """All blocks are gone."""
        effects: list[Effect] = []
        for move in [move for move in self._incoming.values() if move.ahead is None]:
            if move.handover is None:
                error = OverloadedError("the engine was lost", field="key", retry_after_ms=1000)
                effects += self._refuse(move, error, now)
            else:
                move.lose_blocks()
        return effects

    def on_model_lost(self, model: str, now: float) -> list[Effect]:
        """A model does not come back: nothing of it can be taken."""
        error = OverloadedError("the model was lost", field="model", retry_after_ms=1000)
        moves = [move for move in self._incoming.values() if move.offer.generate.model == model]
        return [effect for move in moves for effect in self._refuse(move, error, now)]

    def on_attach(self, peer: bytes, attach: Attach, now: float) -> list[Effect]:
        """A client follows its request."""
        move = self._incoming.get(attach.key)
        if self._here.other(attach.key, peer, attach.request_id):
            return []  # the client has given this placement up, and this was said before
        if move is not None and move.request_id == attach.request_id:
            move.client, move.received = peer, attach.received
            return []
        told = self._here.attach(attach.key, attach.request_id, peer, attach.received, now)
        error = AgentLostError("no such move here", field="key", expected="one under way")
        return told or [Send(CLIENTS, peer, Failed(attach.request_id, error.info()))]

    def cancel(self, peer: bytes, request_id: str, now: float) -> list[Effect]:
        """A client that has come too early wants no more of its request."""
        error = AgentLostError("its client wants no more of it", field="request_id")
        moves = [
            move
            for move in self._incoming.values()
            if (move.client, move.request_id) == (peer, request_id)
        ]
        return [effect for move in moves for effect in self._refuse(move, error, now)]

    def on_peer_lost(self, peer: bytes) -> None:
        """A client cannot be reached over this connection."""
        for move in self._incoming.values():
            if move.client == peer:
                move.client = None

    def advance(self, now: float) -> list[Effect]:
        """Do what can be done: after anything has happened."""
        return [e for move in list(self._incoming.values()) for e in self._advance(move, now)]

    def on_timer(self, now: float) -> list[Effect]:
        """Give up on sources that are silent, and on requests whose clients do not come."""
        if now < self._tick:
            return []
        self._tick = now + self._tick_s
        effects: list[Effect] = []
        for move in list(self._incoming.values()):
            if move.handover is None and now - move.heard_at > self._silence_s:
                error = AgentLostError("the agent that had it is silent", field="key")
                effects += self._refuse(move, error, now)
        return effects + self._here.on_timer(now)

    def stop(self) -> list[Effect]:
        """The agent ends: what it has not taken stays where it is."""
        error = AgentLostError("the agent is shutting down", field="agent").info()
        return [self._declined(move.key, move.peer, error) for move in self._incoming.values()]

    # Offers

    def _unknown(self, peer: bytes, message: FromSource, now: float) -> list[Effect]:
        taken = self._over.get(message.key)
        if isinstance(message, Abandon):
            if taken:
                return self._here.drop(message.key, now)
            self._over.put(message.key, False)
            return []
        if taken:
            return [Send(CLIENTS, peer, Taken(message.key))]
        if taken is None and isinstance(message, Offer):
            try:
                return self._open(peer, message, now)
            except FestinaError as error:
                info = error.info()
        else:
            info = AgentLostError("no such move here", field="key").info()
        self._over.put(message.key, False)
        return [self._declined(message.key, peer, info)]

    def _open(self, peer: bytes, offer: Offer, now: float) -> list[Effect]:
        if len(self._incoming) >= INCOMING_MAX or self._transfers.serving.full:
            raise OverloadedError("too many requests wait", field="key", retry_after_ms=1000)
        target = self._target
        move = open_move(peer, offer, target.epoch, target.host, self._transfers, now)
        if not self._incoming and not self._here:
            self._tick = now + self._tick_s
        self._incoming[offer.key] = move
        return [self._ready(move)]

    def _ready(self, move: MoveIn) -> Send:
        return Send(CLIENTS, move.peer, Ready(move.key, move.window, move.shared))

    def _receive(self, move: MoveIn, handover: Handover, now: float) -> list[Effect]:
        try:
            check_handover(move, handover)
        except ProtocolError as error:
            return self._refuse(move, error, now)
        move.handover, move.handed_at = handover, now
        return []

    # Going on

    def _advance(self, move: MoveIn, now: float) -> list[Effect]:
        if move.ahead is not None and move.ahead.removed:
            return self._refuse(move, OverloadedError("its prefill failed", field="key"), now)
        move.hold_when_filled()
        effects: list[Effect] = []
        blocks = move.next_import()
        if blocks is not None:
            effects.append(blocks)
        if move.full and move.handover is None:
            return self._refuse(move, OverloadedError("no KV block is free", field="key"), now)
        if move.complete(now, self._patience_s):
            return [*effects, *self._take(move, now)]
        have = move.have()
        return effects if have is None else [*effects, Send(CLIENTS, move.peer, have)]

    def _take(self, move: MoveIn, now: float) -> list[Effect]:
        """It goes on here."""
        if move.handover is None:
            raise AssertionError("what was not handed over does not go on here")
        state = move.handover.state
        seq = move.become(now)
        if move.client is not None and self._transfers.runs(move.client, move.request_id):
            move.client = None  # it has given this placement up
        client = move.key.encode() if move.client is None else move.client
        tokenizer = move.loaded.tokenizer
        request = self._transfers.take_in(move.offer, state, seq, tokenizer, client, now)
        request.attached = move.client is not None
        if move.ahead is None:
            self._transfers.scheduler.adopt(seq)
        del self._incoming[move.key]
        self._over.put(move.key, True)
        told = self._here.add(move.key, request, len(state.output_ids), now)
        taken = Send(CLIENTS, move.peer, Taken(move.key))
        return [taken, EndMove(move.key), note(request, "here", now), *told]

    # Refusing

    def _refuse(self, move: MoveIn, error: FestinaError, now: float) -> list[Effect]:
        del self._incoming[move.key]
        self._over.put(move.key, False)
        if move.ahead is not None:
            self._transfers.scheduler.remove(move.ahead)
        self._transfers.close_account(move.number, now)
        if move.inbox.importing:
            self._freeing[move.key] = move
        else:
            self._give_back(move, now)
        effects: list[Effect] = [self._declined(move.key, move.peer, error.info())]
        if move.client is not None and not self._transfers.runs(move.client, move.request_id):
            lost = AgentLostError("the move has failed", field="key").info()
            effects.append(Send(CLIENTS, move.client, Failed(move.request_id, lost)))
        return [*effects, EndMove(move.key)]

    def _give_back(self, move: MoveIn, now: float) -> None:
        move.lane.pool.release(move.blocks)
        move.blocks = []
        self._transfers.unpin(move.residency, now)

    def _declined(self, key: str, peer: bytes, error: ErrorInfo) -> Send:
        return Send(CLIENTS, peer, Declined(key, self._target.epoch, error))
