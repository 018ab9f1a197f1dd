"""The sequences of one resident model, and the KV blocks they share."""

from __future__ import annotations

from collections.abc import Container, Iterable

from festina.control.lengths import LengthPredictor
from festina.control.sequence import BlockPool, Sequence
from festina.control.step_time import StepTime


class Lane:
    """One model's waiting and running sequences. Owned by the `LocalScheduler`.

    A sequence is waiting while it holds no KV blocks and running while it holds some. The top
    sequence (one that has outgrown its prediction, else the oldest) never loses its blocks, so it
    always gets on, and so in turn does everyone.

    Args:
        model: Deployment name.
        pool: Its KV blocks.
        block_tokens: Tokens in one block.
        step_time: Predicts its steps.
        lengths: Predicts its outputs.
    """

    def __init__(
        self,
        model: str,
        pool: BlockPool,
        block_tokens: int,
        step_time: StepTime,
        lengths: LengthPredictor,
    ) -> None:
        self.model = model
        self.pool = pool
        self.step_time = step_time
        self.lengths = lengths
        self.waiting: dict[int, Sequence] = {}
        self.running: dict[int, Sequence] = {}
        self.busy = False
        self.last_step_at = 0.0
        self._block_tokens = block_tokens

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self._block_tokens)

    def decodes(self) -> list[Sequence]:
        """Sequences whose next step is a decode, in no order."""
        return [
            seq
            for seq in self.running.values()
            if seq.decoding and not seq.in_step and not seq.held
        ]

    def prefills(self) -> Iterable[Sequence]:
        """Sequences with prompt tokens to go, running ones first."""
        for seq in self.running.values():
            if not seq.decoding and not seq.in_step and not seq.held:
                yield seq
        yield from (seq for seq in self.waiting.values() if not seq.held)

    def uncommitted_blocks(self) -> int:
        """Free blocks that the running sequences are not expected to need."""
        size, growth = self._block_tokens, 0
        for seq in self.running.values():  # hot: no call per sequence that can be spared
            missing = -(-seq.expected_tokens // size) - len(seq.blocks)
            if missing > 0:
                growth += missing
        return self.pool.free - growth

    def reserve(self, seq: Sequence, tokens: int, planned: Container[int], now: float) -> bool:
        """Give `seq` blocks for `tokens` tokens, evicting others where it may.

        Decodes and the top sequence evict whichever running sequence is cheapest to recompute,
        but never the top one, one in a step, or one already `planned` into this step.

        Returns:
            Whether it has the blocks now.
        """
        missing = self.blocks_for(tokens) - len(seq.blocks)
        if missing > self.pool.free:
            top = self.top()
            if not seq.decoding and seq is not top:
                return False
            self._evict_until(missing, seq, top, planned, now)
        blocks = self.pool.allocate(missing) if missing > 0 else []
        if blocks is None:
            return False
        seq.blocks.extend(blocks)
        if self.waiting.pop(seq.number, None) is not None:
            self.running[seq.number] = seq
        return True

    def repredict(self, seq: Sequence) -> None:
        """Set memory aside for more output where `seq` has outgrown its prediction."""
        if seq.predicted_tokens <= seq.output_tokens < seq.max_tokens:
            seq.outgrown = True
            seq.predicted_tokens = self.lengths.predict(seq.max_tokens, seq.output_tokens)

    def top(self) -> Sequence | None:
        """The running sequence that never loses its blocks."""
        return min(
            (seq for seq in self.running.values() if not seq.held),
            key=lambda seq: (not seq.outgrown, seq.number),
            default=None,
        )

    def adopt(self, seq: Sequence) -> None:
        """Take a sequence from another device, with the blocks of this pool that it has."""
        seq.predicted_tokens = self.lengths.predict(seq.max_tokens, seq.output_tokens)
        (self.running if seq.blocks else self.waiting)[seq.number] = seq

    def drop(self, seq: Sequence) -> None:
        """Forget `seq` and free its blocks; those of a step under way are freed at its end."""
        self.waiting.pop(seq.number, None)
        self.running.pop(seq.number, None)
        seq.removed = True
        if not seq.in_step:
            self._free(seq)

    def preempt(self, now: float) -> None:
        """Every running sequence that is in no step loses its blocks."""
        for seq in [seq for seq in self.running.values() if not seq.in_step]:
            self._preempt(seq, now)

    def leave_step(self, seq: Sequence) -> None:
        """The step that `seq` was in has ended."""
        seq.in_step = False
        if seq.removed:
            self._free(seq)

    def _free(self, seq: Sequence) -> None:
        self.pool.release(seq.blocks)
        seq.blocks = []
        seq.cached = 0

    def _evict_until(
        self,
        blocks: int,
        seq: Sequence,
        top: Sequence | None,
        planned: Container[int],
        now: float,
    ) -> None:
        victims = [
            other
            for other in self.running.values()
            if other is not seq
            and other is not top
            and not other.in_step
            and not other.held
            and other.number not in planned
        ]
        victims.sort(key=lambda other: (other.cached, -other.number))
        if self.pool.free + sum(len(victim.blocks) for victim in victims) < blocks:
            return
        for victim in victims:
            if self.pool.free >= blocks:
                return
            self._preempt(victim, now)

    def _preempt(self, seq: Sequence, now: float) -> None:
        self._free(seq)
        seq.preemptions += 1
        seq.runnable_at = now
        del self.running[seq.number]
        self.waiting[seq.number] = seq
