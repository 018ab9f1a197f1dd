"""One request on its way to another agent, as its source sees it.

OFFERED → STAGING (the request goes on here) → HOLDING (no step runs it; the last blocks go) →
HANDED (it is not this agent's any more). Who drives it: `festina.runtime.protocol.agent_moves_out`.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from festina.control.migration import Method
from festina.control.sequence import Sequence
from festina.engine.base import BLOCK_TOKENS
from festina.messages import (
    PIECE_BYTES_MAX,
    AnyMessage,
    Follow,
    Handover,
    Have,
    KvBlocks,
    Migrate,
    Moving,
    Offer,
    Ready,
)
from festina.runtime.protocol.agent_requests import Request
from festina.runtime.protocol.agent_transfers import sequence_of
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.move_effects import AGENTS, ExportBlocks, Exported

LAG_TOKENS = 32
"""Output that the target may have to prefill between the hand-over and its first token."""

EXPORT_BLOCKS_MAX = 16
"""Blocks read between two steps."""


class Phase(enum.Enum):
    """How far a move has come."""

    OFFERED = "offered"
    STAGING = "staging"
    HOLDING = "holding"
    HANDED = "handed over"


@dataclass(slots=True, eq=False)
class MoveOut:
    """One move. Owned by `MovesOut`.

    Attributes:
        key: Its name.
        request: Which request.
        order: Where it goes.
        method: How.
        offer: What the target was asked.
        began: When.
        asked_at: When something was last said or repeated.
        phase: How far it has come.
        window: Blocks that may be under way.
        shared: By shared memory.
        acked: Blocks that are in the target's pool.
        sent: Blocks that were sent, not counting those that have to be sent again.
        sent_max: The most that this has been.
        exporting: Some are being read.
        acked_before: `acked` when it was last looked at.
        filled: Tokens that the target has prefilled.
        known: Output tokens that the target has been told of.
        attached: The client has come to the target.
        total: Blocks to send in all, once that is known.
        tokens: Tokens in them.
        handover: What was said when it was handed over.
        block_bytes: Size of a block, once one was read.
        forgotten: What it held here has been given back.
    """

    key: str
    request: Request
    order: Migrate
    method: Method
    offer: Offer
    began: float
    asked_at: float
    phase: Phase = Phase.OFFERED
    window: int = 0
    shared: bool = False
    acked: int = 0
    sent: int = 0
    sent_max: int = 0
    exporting: bool = False
    acked_before: int = 0
    filled: int = 0
    known: int = 0
    attached: bool = False
    total: int | None = None
    tokens: int = 0
    handover: Handover | None = None
    block_bytes: int = 0
    forgotten: bool = False

    @property
    def endpoint(self) -> str:
        """Where the target listens."""
        return self.order.endpoint

    @property
    def seq(self) -> Sequence:
        """The request's sequence."""
        return sequence_of(self.request)

    def say(self, message: AnyMessage) -> Send:
        """A message to the target."""
        return Send(AGENTS, self.endpoint.encode(), message)

    def moving(self) -> Moving:
        """What the client is told."""
        order = self.order
        return Moving(
            self.request.request_id,
            order.agent,
            order.epoch,
            order.endpoint,
            self.key,
            order.server_key,
        )

    # From the target

    def ready(self, message: Ready) -> bool:
        """The target has room. False if that is not new."""
        if self.phase is not Phase.OFFERED:
            return False
        self.phase = Phase.STAGING
        self.window = message.window
        self.shared = message.shared
        self.known = len(self.offer.state.output_ids)
        return True

    def have(self, message: Have) -> None:
        """More has arrived."""
        self.acked = max(self.acked, min(message.blocks, self.sent_max))
        self.sent = max(self.sent, self.acked)
        self.filled = max(self.filled, message.tokens)
        self.attached = message.attached

    # What can be done now

    def export(self) -> ExportBlocks | None:
        """Blocks to read next: those that are full, and once no step runs the rest."""
        if self.exporting or self.method == "recompute" or not self.window:
            return None
        seq = self.seq
        there = len(seq.blocks) if self.total is not None else seq.cached // BLOCK_TOKENS
        limit = there if self.total is None else min(there, self.total)
        limit = min(limit, self.acked + self.window, self.sent + EXPORT_BLOCKS_MAX)
        if limit <= self.sent:
            return None
        self.exporting = True
        blocks = np.array(seq.blocks[self.sent : limit], np.int32)
        window = self.window if self.shared else 0
        return ExportBlocks(self.key, seq.model, blocks, self.sent, window)

    def exported(self, effect: ExportBlocks, outcome: Exported) -> list[Send]:
        """Blocks were read: pass them on."""
        self.exporting = False
        self.block_bytes = outcome.block_bytes
        count = len(effect.blocks)
        self.sent = max(self.acked, effect.first + count)
        self.sent_max = max(self.sent_max, self.sent)
        return [self.say(message) for message in self._pieces(effect.first, count, outcome)]

    def follow(self) -> Follow | None:
        """Output that the target should prefill as well, if it has done what it knows of."""
        outputs = self.seq.token_ids[self.seq.prompt_tokens :]
        known_tokens = self.seq.prompt_tokens + self.known
        if self.method != "recompute" or len(outputs) - self.known <= LAG_TOKENS:
            return None
        if self.filled < known_tokens - 1:
            return None
        index, self.known = self.known, len(outputs)
        return Follow(self.key, index, tuple(outputs[index:]))

    def close_enough(self) -> bool:
        """Whether what is left takes less than a decode gap."""
        if not self.attached:
            return False
        if self.method == "recompute":
            return len(self.seq.token_ids) - 1 - self.filled <= LAG_TOKENS
        return self.seq.cached // BLOCK_TOKENS - self.acked <= max(1, self.window // 4)

    def fix_total(self) -> None:
        """No step runs it any more: what there is to send is all there will be."""
        if self.method == "recompute":
            self.total = 0
            return
        cached = self.seq.cached
        self.total = max(self.acked, -(-cached // BLOCK_TOKENS))
        self.tokens = max(cached, self.acked * BLOCK_TOKENS)

    @property
    def all_sent(self) -> bool:
        """Whether nothing is left to send before the hand-over."""
        return not self.exporting and self.total is not None and self.sent >= self.total

    def rewind(self) -> None:
        """If nothing has arrived since the last call: send it again."""
        if self.acked == self.acked_before and not self.exporting:
            self.sent = min(self.sent, self.acked)
        self.acked_before = self.acked

    def repeat(self) -> list[AnyMessage]:
        """What to say again to a target that has not answered."""
        match self.phase:
            case Phase.OFFERED:
                return [self.offer]
            case Phase.HANDED if self.handover is not None:
                return [self.handover]
            case Phase.STAGING if self.method == "recompute":
                index = len(self.offer.state.output_ids)
                outputs = self.seq.token_ids[self.seq.prompt_tokens :][index : self.known]
                if outputs and self.filled < self.seq.prompt_tokens + self.known - 1:
                    return [Follow(self.key, index, tuple(outputs))]
        return []

    def _pieces(self, first: int, count: int, outcome: Exported) -> Iterator[KvBlocks]:
        size = outcome.block_bytes
        if outcome.memory:
            yield KvBlocks(self.key, first, count, size, memory=outcome.memory)
            return
        for number in range(count):
            start = number * size
            for offset in range(0, size, PIECE_BYTES_MAX):
                end = start + min(size, offset + PIECE_BYTES_MAX)
                data = outcome.data[start + offset : end]
                yield KvBlocks(self.key, first + number, 1, size, offset, data, zlib.crc32(data))
