"""Requests that an agent gives to others: each as `Migrate` says, a few at a time.

Before `Handover` is sent a request is this agent's, whatever goes wrong; afterwards it is not,
unless the target says that it has not taken it and never will (`Declined`). So nobody has it twice.
A target that is silent after that counts as dead, and the request's client is told.
"""

from __future__ import annotations

from dataclasses import dataclass

from festina.account import MoveOutcome
from festina.config import LinkConfig
from festina.errors import AgentLostError, FestinaError
from festina.messages import (
    MOVED_LOGPROBS_MAX,
    MOVED_TOKENS_MAX,
    Abandon,
    AnyMessage,
    Declined,
    Failed,
    Handover,
    Have,
    Migrate,
    Offer,
    Pong,
    Ready,
    Taken,
)
from festina.runtime.protocol import agent_logprobs
from festina.runtime.protocol.agent_account import MoveTally
from festina.runtime.protocol.agent_effects import Effect
from festina.runtime.protocol.agent_links import CLIENTS
from festina.runtime.protocol.agent_move_out import MoveOut, Phase
from festina.runtime.protocol.agent_peers import AgentPeers
from festina.runtime.protocol.agent_routes import Router
from festina.runtime.protocol.agent_spread import spread
from festina.runtime.protocol.agent_transfers import Transfers, as_token_ids
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.move_effects import EndMove, ExportBlocks, Exported
from festina.runtime.protocol.request_notes import note

ORDERED_MAX = 4096
"""Requests that wait for their turn to move."""

LIMIT_S = 30.0
"""A move that has not come to its hand-over by then is given up."""


@dataclass(frozen=True, slots=True)
class MoveSource:
    """Who gives requests away.

    Attributes:
        name: Begins the keys of its moves: agent and epoch.
        host: Names its host; "" shares no memory.
        endpoint: Where it listens itself.
        moves_max: Moves at a time.
        link: Heartbeats.
    """

    name: str
    host: str
    endpoint: str
    moves_max: int
    link: LinkConfig


class MovesOut:
    """All moves away from one agent.

    Args:
        source: Who it is.
        transfers: Takes requests out of the books, and back.
        router: Chooses how each moves.

    Attributes:
        tally: How they ended.
    """

    def __init__(self, source: MoveSource, transfers: Transfers, router: Router) -> None:
        self._source = source
        self._transfers = transfers
        self._router = router
        self._peers = AgentPeers(source.link)
        self._tick_s = source.link.heartbeat_s / 2
        self._tick = 0.0
        self._ordered: dict[int, Migrate] = {}
        self._moves: dict[str, MoveOut] = {}
        self._begun = 0
        self.tally = MoveTally()

    @property
    def moving(self) -> int:
        """Requests that are on their way, or wait for their turn."""
        return len(self._moves) + len(self._ordered)

    @property
    def handed(self) -> int:
        """Requests that were handed over and may come back."""
        return sum(1 for move in self._moves.values() if move.phase is Phase.HANDED)

    @property
    def next_timer(self) -> float:
        """When `on_timer` has something to do."""
        return self._tick if self._moves or self._peers.any else float("inf")

    def order(self, migrate: Migrate, now: float) -> list[Effect]:
        """Move these requests; those that are on their way already are left alone."""
        targets = (migrate.endpoint, *(other.endpoint for other in migrate.others))
        if self._source.endpoint in targets:
            return []
        moving = {move.request.number for move in self._moves.values()}
        wanted = set(migrate.request_ids)
        chosen = [
            request
            for request in self._transfers.serving.requests.of_model(migrate.model)
            if request.number not in moving and (not wanted or request.request_id in wanted)
        ]
        sizes = [self._router.kv_bytes(request) for request in chosen]
        orders = spread(migrate, sizes, self._router.bytes_per_s)
        for request, order in zip(chosen, orders, strict=True):
            if order is not None and len(self._ordered) < ORDERED_MAX:
                self._ordered[request.number] = order
        return self.advance(now)

    def on_message(self, endpoint: str, message: AnyMessage, now: float) -> list[Effect]:
        """A target says something."""
        self._peers.heard(endpoint, now)
        if isinstance(message, Pong):
            return self._another(endpoint, message.epoch, now)
        if not isinstance(message, Ready | Have | Taken | Declined):
            return []
        move = self._moves.get(message.key)
        if move is None or move.endpoint != endpoint:
            return []
        match message:
            case Ready():
                return self._tell_client(move) if move.ready(message) else []
            case Have():
                move.have(message)
            case Taken() if move.phase is Phase.HANDED:
                self._router.learn(move, now)
                return self._forget(move, now, "moved")
            case Declined(epoch=epoch) if epoch == move.order.epoch:
                return self._fail(move, now)
            case Declined():
                return self._lose(move, now)
        return []

    def on_exported(
        self, effect: ExportBlocks, outcome: Exported | FestinaError, now: float
    ) -> list[Effect]:
        """Blocks were read, or could not be."""
        move = self._moves.get(effect.key)
        if move is None:
            return []
        if isinstance(outcome, Exported):
            return list(move.exported(effect, outcome))
        move.exporting = False
        if move.phase is not Phase.HANDED:
            return self._abandon(move, now)
        return []  # what is missing is prefilled again at the target

    def advance(self, now: float) -> list[Effect]:
        """Do what can be done: after anything has happened."""
        effects: list[Effect] = []
        for move in list(self._moves.values()):
            effects += self._advance(move, now)
        while self._ordered and len(self._moves) < self._source.moves_max:
            number = next(iter(self._ordered))
            effects += self._begin(number, self._ordered.pop(number), now)
        return effects

    def on_timer(self, now: float) -> list[Effect]:
        """Say again what was not answered; give up on those who are silent."""
        if now < self._tick:
            return []
        self._tick = now + self._tick_s
        effects: list[Effect] = []
        for move in list(self._moves.values()):
            late = move.phase is not Phase.HANDED and now - move.began > LIMIT_S
            if late or self._peers.silent(move.endpoint, now):
                effects += self._lose(move, now)
            elif now - move.asked_at >= self._tick_s:
                move.asked_at = now
                move.rewind()
                effects += [move.say(message) for message in move.repeat()]
                if move.phase is Phase.STAGING and not move.attached:
                    effects += self._tell_client(move)
        in_use = {move.endpoint for move in self._moves.values()}
        return effects + self._peers.on_timer(in_use, now)

    def cancel(self, peer: bytes, request_id: str, now: float) -> list[Effect]:
        """The client of a request that was handed over wants no more of it."""
        effects: list[Effect] = []
        for move in list(self._moves.values()):
            request = move.request
            if move.phase is Phase.HANDED and (request.peer, request.request_id) == (
                peer,
                request_id,
            ):
                effects += [move.say(Abandon(move.key)), *self._forget(move, now, "ended")]
        return effects

    def on_model_lost(self, model: str, now: float) -> None:
        """A model does not come back: what was handed over cannot be taken back."""
        for move in self._moves.values():
            if move.phase is Phase.HANDED and move.request.message.model == model:
                self._transfers.forget(move.request, now)
                move.forgotten = True

    def stop(self) -> list[Effect]:
        """The agent ends. What was handed over is left to its target."""
        return [
            move.say(Abandon(move.key))
            for move in self._moves.values()
            if move.phase is not Phase.HANDED
        ]

    # One move

    @staticmethod
    def _tell_client(move: MoveOut) -> list[Effect]:
        request = move.request
        return [Send(CLIENTS, request.peer, move.moving())] if request.attached else []

    def _begin(self, number: int, migrate: Migrate, now: float) -> list[Effect]:
        requests = self._transfers.serving.requests
        request = requests.get(number) if requests.active(number) else None
        if request is None or request.sequence is None:
            return []
        if len(request.sequence.token_ids) > MOVED_TOKENS_MAX:
            return []
        if agent_logprobs.count(request.logprobs) > MOVED_LOGPROBS_MAX:
            return []
        method = self._router.method(request, migrate, now)
        if method is None:
            return []
        self._begun += 1
        key = f"{self._source.name}/{self._begun}"
        state = self._transfers.state(request, now)
        generate = as_token_ids(request)
        offer = Offer(key, migrate.epoch, self._source.host, generate, state, method)
        move = MoveOut(key, request, migrate, method, offer, began=now, asked_at=now)
        if not self._moves:
            self._tick = now + self._tick_s
        self._moves[key] = move
        return [*self._peers.open(move.endpoint, migrate.server_key, now), move.say(offer)]

    def _advance(self, move: MoveOut, now: float) -> list[Effect]:
        active = self._transfers.serving.requests.active(move.request.number)
        if move.phase is not Phase.HANDED and not active:
            return self._abandon(move, now)
        if move.phase is Phase.STAGING and move.close_enough():
            move.phase = Phase.HOLDING
            move.seq.held = True
        if move.phase is Phase.HOLDING and not move.seq.in_step:
            move.fix_total()
        effects: list[Effect] = []
        follow = move.follow() if move.phase is Phase.STAGING else None
        if follow is not None:
            effects.append(move.say(follow))
        export = move.export()
        if export is not None:
            effects.append(export)
        if move.phase is Phase.HOLDING and move.all_sent:
            effects += [self._hand_over(move, now), note(move.request, "away", now)]
        return effects

    def _hand_over(self, move: MoveOut, now: float) -> Send:
        state = self._transfers.let_go(move.request, move.moving(), now)
        move.phase = Phase.HANDED
        move.asked_at = now
        move.handover = Handover(move.key, move.total or 0, move.tokens, state)
        return move.say(move.handover)

    def _fail(self, move: MoveOut, now: float) -> list[Effect]:
        """The target does not have it and never will."""
        request, told = move.request, list[Effect]()
        if move.phase is not Phase.HANDED:
            kept = self._transfers.serving.requests.active(request.number)
            if kept:
                self._transfers.release(request, now)
        elif move.forgotten:
            return self._fail_client(move, now)
        else:
            kept = self._transfers.take_back(request, now)
            if kept:
                told.append(note(request, "here", now))
        return [*told, *self._close(move, "kept" if kept else "ended")]

    def _abandon(self, move: MoveOut, now: float) -> list[Effect]:
        return [move.say(Abandon(move.key)), *self._fail(move, now)]

    def _lose(self, move: MoveOut, now: float) -> list[Effect]:
        """The target is silent: what was handed over may run there, so it never runs here again."""
        if move.phase is not Phase.HANDED:
            return self._abandon(move, now)
        return self._fail_client(move, now)

    def _fail_client(self, move: MoveOut, now: float) -> list[Effect]:
        """Nobody here can tell what became of it."""
        request = move.request
        self._transfers.gone.drop((request.peer, request.request_id))
        error = AgentLostError(f"the agent {move.order.agent} that it moved to has lost it")
        failed = Failed(request.request_id, error.info())
        anew = self._transfers.runs(request.peer, request.request_id)
        told: list[Effect] = []
        if request.attached and not anew:
            told.append(Send(CLIENTS, request.peer, failed))
        return [*told, *self._forget(move, now, "lost")]

    def _forget(self, move: MoveOut, now: float, outcome: MoveOutcome) -> list[Effect]:
        if not move.forgotten:
            self._transfers.forget(move.request, now)
        return self._close(move, outcome)

    def _another(self, endpoint: str, epoch: int, now: float) -> list[Effect]:
        """Another process answers under that address."""
        lost = [
            move
            for move in self._moves.values()
            if move.endpoint == endpoint and move.order.epoch < epoch
        ]
        return [effect for move in lost for effect in self._lose(move, now)]

    def _close(self, move: MoveOut, outcome: MoveOutcome) -> list[Effect]:
        del self._moves[move.key]
        self.tally.add(move.method, outcome)
        return [EndMove(move.key)]
