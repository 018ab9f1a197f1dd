"""One request on its way here from another agent, as its target sees it.

Until `Handover` it is the source's: here it is blocks of a pool that fill up (`copy`), or a
sequence that is prefilled and chooses no token (`recompute`). Who drives it:
`festina.runtime.protocol.agent_moves_in`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from festina.control.lane import Lane
from festina.control.sequence import Sequence
from festina.engine.base import BLOCK_TOKENS, LoadedModel
from festina.messages import Follow, Handover, Have, Offer
from festina.runtime.protocol.agent_models import Residency
from festina.runtime.protocol.block_inbox import BlockInbox
from festina.runtime.protocol.move_effects import ImportBlocks


@dataclass(slots=True, eq=False)
class MoveIn:
    """One move. Owned by `MovesIn`.

    Attributes:
        offer: What the source has said.
        peer: The source's connection.
        number: Of the request here, and of its account.
        residency: Of its model.
        loaded: Its model.
        lane: Its model's sequences.
        inbox: KV blocks as they arrive.
        window: Blocks that may be under way.
        shared: By shared memory.
        heard_at: When the source was last heard.
        output_ids: Output that the source has told of.
        blocks: Blocks of the pool that were set aside for a copy.
        ahead: The sequence that is prefilled; None for a copy.
        client: Its client's connection, once that has come.
        received: Tokens that the client had then.
        handover: It is this agent's, as soon as what was sent with it has arrived.
        handed_at: Since when.
        told: The last `Have` that was said.
        full: The pool has no block left for more.
    """

    offer: Offer
    peer: bytes
    number: int
    residency: Residency
    loaded: LoadedModel
    lane: Lane
    inbox: BlockInbox
    window: int
    shared: bool
    heard_at: float
    output_ids: tuple[int, ...]
    blocks: list[int] = field(default_factory=list)
    ahead: Sequence | None = None
    client: bytes | None = None
    received: int = 0
    handover: Handover | None = None
    handed_at: float = 0.0
    told: Have | None = None
    full: bool = False

    @property
    def key(self) -> str:
        """Its name."""
        return self.offer.key

    @property
    def request_id(self) -> str:
        """The client's name for the request."""
        return self.offer.generate.request_id

    def sequence(self, now: float) -> Sequence:
        """The request as this agent's scheduler sees it, without blocks and as old as it is."""
        offer, generate, deployment = self.offer, self.offer.generate, self.residency.deployment
        state = offer.state if self.handover is None else self.handover.state
        prompt = generate.token_ids
        return Sequence(
            number=self.number,
            model=generate.model,
            token_ids=[*prompt, *self.output_ids],
            prompt_tokens=len(prompt),
            max_tokens=generate.max_tokens,
            slo=generate.slo or deployment.slo,
            pace=deployment.pace if generate.pace is None else generate.pace,
            submitted_at=now - state.elapsed_ms / 1e3,
            predicted_tokens=generate.max_tokens,
            last_token_at=now - state.silent_ms / 1e3,
            runnable_at=now,
            preemptions=state.preemptions,
        )

    def follow(self, message: Follow) -> None:
        """The output has grown."""
        known = len(self.output_ids)
        if message.index > known or message.index + len(message.token_ids) <= known:
            return
        self.output_ids += message.token_ids[known - message.index :]
        if self.ahead is not None:
            self.ahead.token_ids = [*self.offer.generate.token_ids, *self.output_ids][:-1]

    def hold_when_filled(self) -> None:
        """What is prefilled has nothing to do until more comes; its blocks stay."""
        if self.ahead is not None:
            self.ahead.held = self.ahead.pending_tokens == 0

    def lose_blocks(self) -> None:
        """What was copied is gone, and is prefilled instead."""
        self.lane.pool.release(self.blocks)
        self.blocks = []
        self.inbox = BlockInbox(self.window)
        self.full = True

    @property
    def filled(self) -> int:
        """Tokens that were prefilled here, once that is done."""
        done = self.ahead is not None and self.ahead.pending_tokens == 0
        return self.ahead.cached if self.ahead is not None and done else 0

    def have(self) -> Have | None:
        """What to tell the source; None if that is not new."""
        have = Have(self.key, self.inbox.imported, self.filled, self.client is not None)
        if have == self.told:
            return None
        self.told = have
        return have

    def next_import(self) -> ImportBlocks | None:
        """Blocks to write into the pool now. Sets `full` where that has no room for them."""
        if self.full or self.ahead is not None:
            return None
        missing = self.inbox.accepted - len(self.blocks)
        if missing > 0 and not self.inbox.importing:
            fresh = self.lane.pool.allocate(missing)
            if fresh is None:
                self.full = True
                return None
            self.blocks += fresh
        arrived = self.inbox.next()
        if arrived is None:
            return None
        places = self.blocks[arrived.first : arrived.first + arrived.count]
        return ImportBlocks(
            key=self.key,
            model=self.offer.generate.model,
            blocks=np.array(places, np.int32),
            first=arrived.first,
            block_bytes=arrived.block_bytes,
            data=arrived.data,
            memory=arrived.memory,
            window=self.window,
        )

    def complete(self, now: float, patience_s: float) -> bool:
        """Whether it can go on here: all that was sent has arrived, or is waited for no more."""
        if self.handover is None or self.inbox.importing:
            return False
        if self.ahead is not None or self.inbox.imported >= self.handover.blocks:
            return True
        return self.full or now - self.handed_at >= patience_s

    def become(self, now: float) -> Sequence:
        """The sequence that goes on here, with its blocks and what they hold; not yet in its lane.

        A sequence that was prefilled is in its lane already.
        """
        if self.handover is None:
            raise AssertionError("what was not handed over does not go on here")
        self.output_ids = self.handover.state.output_ids
        seq = self.sequence(now)
        if self.ahead is not None:
            ahead = self.ahead
            ahead.token_ids, ahead.last_token_at = seq.token_ids, seq.last_token_at
            ahead.submitted_at = seq.submitted_at
            ahead.preemptions += seq.preemptions
            ahead.ahead = ahead.held = False
            return ahead
        arrived = min(self.inbox.imported, self.handover.blocks) * BLOCK_TOKENS
        seq.cached = min(arrived, self.handover.tokens, len(seq.token_ids) - 1)
        used = -(-seq.cached // BLOCK_TOKENS)
        seq.blocks = self.blocks[:used]
        self.lane.pool.release(self.blocks[used:])
        self.blocks = []
        return seq
