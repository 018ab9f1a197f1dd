"""Our local rule, as the simulator runs it: `csrc/core/local/chooser.hpp` (DESIGN 4.2).

Decode steps of a model are released just inside its tightest TBT objective times its pace, so that
batches grow and weight reads are shared. Prefill runs whenever there is any, in chunks that end
before the next decode of any model must start, and takes its own model's decodes along. A decode
that leaves too little room for a chunk is released early, so the device never idles over a queue.
Models that have something to do take turns; a deadline at risk goes first.
"""

from __future__ import annotations

from collections.abc import Sequence as Items

from festina import _core
from festina.control.choice import Choice, LocalRules, Wait
from festina.control.lane import Lane
from festina.control.sequence import Sequence
from festina.types import OperatingPoint


class FestinaRule:
    """Puts the sequences of a device before the native rule. Used by one thread.

    Args:
        rules: Settings.
    """

    def __init__(self, rules: LocalRules) -> None:
        self._native = _core.LocalChooser(
            {
                "pace": rules.pacing,
                "margin": rules.margin,
                "sigmas": rules.sigmas,
                "batch_max": rules.batch_max,
                "chunk_tokens": rules.chunk_tokens,
                "chunk_min_tokens": rules.chunk_min,
                "chunk_unit_tokens": 8,
                "by_deadline": True,
                "least_chunk": True,
                "turns": True,
            }
        )

    def choose(
        self, lanes: Items[Lane], point: OperatingPoint, slots: int, now: float
    ) -> Choice | Wait:
        """The most urgent step that should run now, or the time until which none should.

        Args:
            lanes: Models without a step under way.
            point: How fast the device runs.
            slots: Steps that may still start side by side; 1 on a device without partitions.
            now: Seconds.
        """
        rows = _Rows(now)
        for lane in lanes:
            rows.add(lane)
        costs = [lane.step_time.cost(point) for lane in lanes]
        chosen = self._native.choose(costs, rows.lanes, rows.decodes, rows.prompts, slots)
        if chosen.lane < 0:
            return Wait(now + chosen.wait_ms / 1e3)
        return Choice(
            lanes[chosen.lane],
            tuple(rows.decoding[row] for row in chosen.decodes),
            tuple((rows.waiting[row], tokens) for row, tokens in chosen.chunks),
        )


class _Rows:
    """Flat lists as `_core.LocalChooser` reads them; times are milliseconds from now.

    Attributes:
        lanes: Per lane: decodes, prompts, free blocks, whether nothing runs, last step.
        decodes: Per decode: tokens in the cache, last token, TBT, pace, whether it has outgrown.
        prompts: Per prompt: tokens to go, tokens in the cache, since when, objective, whether it
            has blocks, blocks it is expected to need.
        decoding: The sequences of `decodes`.
        waiting: The sequences of `prompts`.
    """

    def __init__(self, now: float) -> None:
        self.lanes: list[float] = []
        self.decodes: list[float] = []
        self.prompts: list[float] = []
        self.decoding: list[Sequence] = []
        self.waiting: list[Sequence] = []
        self._now = now

    def add(self, lane: Lane) -> None:
        decoding, waiting = len(self.decoding), len(self.waiting)
        now = self._now
        for seq in lane.running.values():
            if seq.in_step or seq.held:
                continue
            if not seq.decoding:
                self._add_prompt(seq, 0)
                continue
            self.decoding.append(seq)
            self.decodes += (
                seq.cached,
                (seq.last_token_at - now) * 1e3,
                seq.slo.tbt_ms,
                seq.pace,
                seq.outgrown,
            )
        for seq in lane.waiting.values():
            if not seq.held:
                self._add_prompt(seq, lane.blocks_for(seq.expected_tokens))
        self.lanes += (
            len(self.decoding) - decoding,
            len(self.waiting) - waiting,
            lane.uncommitted_blocks() if lane.waiting else 0,
            not lane.running,
            (lane.last_step_at - now) * 1e3,
        )

    def _add_prompt(self, seq: Sequence, blocks: int) -> None:
        first = seq.output_tokens == 0
        since = seq.submitted_at if first else seq.last_token_at
        self.waiting.append(seq)
        self.prompts += (
            seq.pending_tokens,
            seq.cached,
            (since - self._now) * 1e3,
            seq.slo.ttft_ms if first else seq.slo.tbt_ms,
            bool(seq.blocks),
            blocks,
        )
