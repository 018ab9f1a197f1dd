"""The local scheduler: which model's step runs next on one device, and with whom (DESIGN 4.2).

Pure: told what happened and what time it is, it says what to start. It owns the sequences and
their KV block tables; the engine owns what is in the blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Items
from dataclasses import dataclass
from functools import partial
from typing import Literal

from festina.control import local_paper
from festina.control.choice import Choice, LocalRules, Wait, step_work
from festina.control.lane import Lane
from festina.control.local_festina import FestinaRule
from festina.control.sequence import Sequence
from festina.control.step_time import StepWork, predict_ms
from festina.types import OperatingPoint, SmPartition


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """New tokens of one sequence in a step.

    Attributes:
        sequence: Whose.
        tokens: How many of its pending tokens.
        samples: Whether they end its pending tokens, so that the next token is chosen.
        decodes: It is the last token of the output, not part of a prompt.
    """

    sequence: Sequence
    tokens: int
    samples: bool
    decodes: bool = False


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step to start now.

    Attributes:
        step_id: Unique; `settle` wants it back.
        model: Deployment name.
        chunks: At least one.
        work: What it computes.
        predicted_ms: How long it should take.
        started_at: When it was planned.
        point: Clock and SMs.
        partition: Where.
    """

    step_id: int
    model: str
    chunks: tuple[PlannedChunk, ...]
    work: StepWork
    predicted_ms: float
    started_at: float
    point: OperatingPoint
    partition: SmPartition


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps to start now, and when to ask again if nothing happens before (inf: never)."""

    steps: tuple[PlannedStep, ...]
    wait_until: float


class LocalScheduler:
    """Continuous batching of several resident models on one device.

    Args:
        policy: `paper` or `festina`.
        rules: Settings.
        partition: Where steps run.
        steps_max: Steps side by side; a model has at most one.

    Attributes:
        point: Where a step that starts now runs. The owner keeps it up to date.
        planning_point: Where it is planned for: lower, while the clock is about to sink.
    """

    def __init__(
        self,
        policy: Literal["festina", "paper"],
        rules: LocalRules,
        partition: SmPartition,
        steps_max: int = 1,
    ) -> None:
        festina = policy == "festina"
        self._choose = FestinaRule(rules).choose if festina else partial(local_paper.choose, rules)
        self._rules = rules
        self._partition = partition
        self._steps_max = steps_max
        self._lanes: dict[str, Lane] = {}
        self._steps: dict[int, PlannedStep] = {}
        self._steps_planned = 0
        self.point = OperatingPoint(0, partition.sms)
        self.planning_point = self.point

    @property
    def lanes(self) -> dict[str, Lane]:
        """Resident models by name. Read only."""
        return self._lanes

    @property
    def rules(self) -> LocalRules:
        """Its settings."""
        return self._rules

    @property
    def steps(self) -> Items[PlannedStep]:
        """Steps that have not been settled."""
        return tuple(self._steps.values())

    def add_model(self, lane: Lane) -> None:
        """A model has become resident."""
        if lane.model in self._lanes:
            raise KeyError(f"{lane.model} is resident already")
        self._lanes[lane.model] = lane

    def remove_model(self, model: str) -> None:
        """A model is about to be unloaded; it has no sequences and no step."""
        lane = self._lanes[model]
        if lane.waiting or lane.running or lane.busy:
            raise ValueError(f"{model} still has sequences")
        del self._lanes[model]

    def add(self, seq: Sequence) -> None:
        """Queue a sequence of a resident model. Its tokens must fit the model's empty pool."""
        lane = self._lanes[seq.model]
        seq.predicted_tokens = lane.lengths.predict(seq.max_tokens, seq.output_tokens)
        lane.waiting[seq.number] = seq

    def adopt(self, seq: Sequence) -> None:
        """Go on with a sequence from another device, with the blocks that it has here."""
        self._lanes[seq.model].adopt(seq)

    def remove(self, seq: Sequence) -> None:
        """A sequence has ended, however it did; its blocks are freed, after its step if in one."""
        if not seq.removed:
            self._lanes[seq.model].drop(seq)

    def preempt(self, now: float) -> None:
        """All cached keys and values are gone: what is in no step is prefilled again."""
        for lane in self._lanes.values():
            lane.preempt(now)

    def plan(self, now: float) -> Plan:
        """What to start now."""
        steps: list[PlannedStep] = []
        stuck: set[str] = set()
        while len(self._steps) < self._steps_max:
            lanes = [
                lane
                for lane in self._lanes.values()
                if not lane.busy and lane.model not in stuck and (lane.running or lane.waiting)
            ]
            slots = self._steps_max - len(self._steps)
            choice = self._choose(lanes, self.planning_point, slots, now)
            if isinstance(choice, Wait):
                return Plan(tuple(steps), choice.until)
            step = self._start(choice, now)
            if step is None and not self._steps:
                step = self._start(self._top_alone(choice.lane), now)
            if step is None:
                stuck.add(choice.lane.model)  # until a step gives blocks back
            else:
                steps.append(step)
        return Plan(tuple(steps), math.inf)

    def settle(
        self,
        step_id: int,
        token_ids: Items[int | None] | None,
        latency_ms: float,
        now: float,
    ) -> tuple[PlannedStep, list[Sequence]]:
        """A step has ended.

        Args:
            step_id: From `PlannedStep`.
            token_ids: Per chunk the token chosen, or None; None as a whole when the step failed.
            latency_ms: How long it took; ignored for a failed step.
            now: Seconds.

        Returns:
            The step, and the sequences that have got a new token. The sequences of a failed step
            keep their state; the caller removes them.
        """
        step = self._steps.pop(step_id)
        lane = self._lanes[step.model]
        lane.busy = False
        grown: list[Sequence] = []
        if token_ids is not None and step.point == self.point:  # else the clock has changed in it
            lane.step_time.learn(step.work, step.point, latency_ms)
        for index, chunk in enumerate(step.chunks):
            seq = chunk.sequence
            lane.leave_step(seq)
            if token_ids is None or seq.removed:
                continue
            seq.cached += chunk.tokens
            seq.runnable_at = now
            token_id = token_ids[index]
            if token_id is not None:
                seq.token_ids.append(token_id)
                seq.last_token_at = now
                grown.append(seq)
                lane.repredict(seq)
        return step, grown

    def _top_alone(self, lane: Lane) -> Choice:
        """The step of the one sequence that may evict all others: memory never locks up."""
        top = lane.top()
        if top is None:
            return Choice(lane, (), ())
        if top.decoding:
            return Choice(lane, (top,), ())
        return Choice(lane, (), ((top, min(top.pending_tokens, self._rules.chunk_tokens)),))

    def _start(self, choice: Choice, now: float) -> PlannedStep | None:
        """Set blocks aside; sequences that get none stay out of the step."""
        lane = choice.lane
        planned: set[int] = set()
        decodes: list[Sequence] = []
        prefills: list[tuple[Sequence, int]] = []
        for seq in choice.decodes:
            if seq.blocks and lane.reserve(seq, seq.cached + 1, planned, now):
                planned.add(seq.number)
                decodes.append(seq)
        for seq, tokens in choice.prefills:
            if lane.reserve(seq, seq.cached + tokens, planned, now):
                planned.add(seq.number)
                prefills.append((seq, tokens))
        if not planned:
            return None
        chunks = [PlannedChunk(seq, 1, samples=True, decodes=True) for seq in decodes]
        chunks += [
            PlannedChunk(seq, tokens, tokens == seq.pending_tokens and not seq.ahead)
            for seq, tokens in prefills
        ]
        for chunk in chunks:
            chunk.sequence.in_step = True
        lane.busy = True
        lane.last_step_at = now
        work = step_work(decodes, prefills)
        self._steps_planned += 1
        step = PlannedStep(
            step_id=self._steps_planned,
            model=lane.model,
            chunks=tuple(chunks),
            work=work,
            predicted_ms=predict_ms(lane.step_time.cost(self.point), work),
            started_at=now,
            point=self.point,
            partition=self._partition,
        )
        self._steps[step.step_id] = step
        return step
