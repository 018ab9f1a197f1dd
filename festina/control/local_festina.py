"""Our local rule: deadlines, paced decodes, chunks that fit into the gaps (DESIGN 4.2).

Decode steps of a model are released just inside its tightest TBT objective times its pace, so that
batches grow and weight reads are shared. Prefill runs whenever there is any, in chunks that end
before the next decode of any model must start, and takes its own model's decodes along. A decode
that leaves too little room for a chunk is released early, so the device never idles over a queue.
Models that have something to do take turns; a deadline at risk goes first.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass

from festina.control.choice import Choice, LocalRules, Wait, predict_s, split_chunk
from festina.control.lane import Lane
from festina.control.pace import (
    INFINITY,
    DecodeGroup,
    latest_starts,
    release_at,
    rolled_deadline,
)
from festina.control.sequence import Sequence
from festina.types import OperatingPoint

_AHEAD = 16
"""Waiting prompts whose deadlines are looked at to tell how urgent a model's prefill is."""


@dataclass(slots=True)
class _Task:
    """What one idle model could do next.

    Attributes:
        lane: The model.
        decodes: Its most urgent decodes, at most a batch.
        groups: All its decodes, batch by batch.
        queue: Its prompts in order of deadline, those that memory allows.
        chunk: What of them fits before the next decode must start.
        starts_by: When it must start to keep its deadlines.
        release: When it should start.
    """

    lane: Lane
    decodes: tuple[Sequence, ...]
    groups: list[DecodeGroup]
    queue: list[Sequence]
    chunk: tuple[tuple[Sequence, int], ...] = ()
    starts_by: float = INFINITY
    release: float = INFINITY


def choose(
    lanes: Items[Lane], rules: LocalRules, point: OperatingPoint, slots: int, now: float
) -> Choice | Wait:
    """The most urgent step that should run now, or the time until which none should.

    Args:
        lanes: Models without a step under way.
        rules: Settings.
        point: How fast the device runs.
        slots: Steps that may still start side by side; 1 on a device without partitions.
        now: Seconds.
    """
    tasks = [task for lane in lanes if (task := _task(lane, rules, point, now))]
    if not tasks:
        return Wait(INFINITY)
    shared = slots < len(tasks)
    _release_decodes(tasks, shared)
    blocked = [_fit_chunk(task, tasks, shared, rules, point, now) for task in tasks]
    if any(blocked):
        for task in tasks:
            if task.decodes:
                task.release = now
    ready = [task for task in tasks if task.release <= now]
    if not ready:
        return Wait(min(task.release for task in tasks))
    task = _next(ready, point, now)
    return Choice(task.lane, task.decodes, task.chunk)


def _next(ready: list[_Task], point: OperatingPoint, now: float) -> _Task:
    """Whose turn it is.

    Models take turns, so that none is held up by another that is never idle, as long as nobody
    else becomes late by it. Otherwise the earliest deadline goes first; all that are late already
    are equally late and take turns, too.
    """
    ready.sort(key=lambda task: (task.lane.last_step_at, task.lane.model))
    for task in ready:
        ends = now + predict_s(task.lane, task.decodes, task.chunk, point)
        if all(other.starts_by >= ends for other in ready if other is not task):
            return task
    return min(ready, key=lambda task: max(task.starts_by, now))


def _task(lane: Lane, rules: LocalRules, point: OperatingPoint, now: float) -> _Task | None:
    decodes = sorted(
        lane.decodes(), key=lambda seq: (not seq.outgrown, seq.due_at(rules.margin), seq.number)
    )
    queue, held_back = _admissible(lane, rules, now)
    if not decodes and not queue:
        return None
    groups = [
        _group(lane, decodes[start : start + rules.batch_max], rules, point, paced=not held_back)
        for start in range(0, len(decodes), rules.batch_max)
    ]
    return _Task(lane, tuple(decodes[: rules.batch_max]), groups, queue)


def _group(
    lane: Lane, decodes: Items[Sequence], rules: LocalRules, point: OperatingPoint, *, paced: bool
) -> DecodeGroup:
    due_at = min(seq.due_at(rules.margin) for seq in decodes)
    paced_at = -INFINITY
    if rules.pacing and paced:
        paced_at = min(seq.paced_at(rules.margin) for seq in decodes)
    return DecodeGroup(lane.model, due_at, paced_at, predict_s(lane, decodes, (), point) * 1e3)


def _deadline(seq: Sequence, rules: LocalRules, now: float) -> float:
    first = seq.output_tokens == 0
    start = seq.submitted_at if first else seq.last_token_at
    return rolled_deadline(start, seq.due_at(rules.margin) - start, now)


def _admissible(lane: Lane, rules: LocalRules, now: float) -> tuple[list[Sequence], bool]:
    """Prompts in order of deadline for which memory is there or was set aside.

    One that does not fit is passed over, unless it is late: then nobody else is let in before it.

    Returns:
        The prompts, and whether some are held back: then those that decode should not take their
        time, for they hold the memory that others wait for.
    """
    queue: list[Sequence] = []
    admitted, uncommitted = len(lane.running), lane.uncommitted_blocks()
    held_back = closed = False
    for seq in sorted(lane.prefills(), key=lambda seq: (_deadline(seq, rules, now), seq.number)):
        if not seq.blocks:
            needed = lane.blocks_for(seq.expected_tokens)
            fits = needed <= uncommitted or admitted == 0
            closed = closed or (not fits and seq.due_at(rules.margin) < now)
            if closed or not fits:
                held_back = True
                continue
            uncommitted -= needed
            admitted += 1
        queue.append(seq)
    return queue, held_back


def _release_decodes(tasks: Items[_Task], shared: bool) -> None:
    """Set `starts_by` and `release` of the decodes."""
    groups = [group for task in tasks for group in task.groups]
    for task in tasks:
        if not task.groups:
            continue
        starts = latest_starts(groups if shared else task.groups)
        group, start = next(item for item in starts if item[0] is task.groups[0])
        task.starts_by = start
        task.release = release_at(group, start)


def _fit_chunk(
    task: _Task,
    tasks: Items[_Task],
    shared: bool,
    rules: LocalRules,
    point: OperatingPoint,
    now: float,
) -> bool:
    """Size the prefill chunk of `task`; say whether decodes leave too little room for it."""
    if not task.queue:
        return False
    starts_by = _prefill_starts_by(task, rules, point, now)
    at_risk = starts_by <= now
    if at_risk:  # a full batch makes room
        task.decodes = task.decodes[: rules.batch_max - 1]
    room = rules.batch_max - len(task.decodes)
    if room == 0:
        return True
    most = min(rules.chunk_tokens, sum(seq.pending_tokens for seq in task.queue[:room]))
    least = min(rules.chunk_min, most)
    budget_s = _ends_by(task, tasks, shared) - now
    tokens = _largest(task, most, budget_s, point)
    if tokens < least:
        if not at_risk:
            return True
        tokens = least
    task.chunk = split_chunk(task.queue, tokens, room)
    task.starts_by = min(task.starts_by, starts_by)
    task.release = now
    return False


def _ends_by(task: _Task, tasks: Items[_Task], shared: bool) -> float:
    """When a step of `task` must end to keep the deadlines of its decodes and of the others'."""
    ends_by = min((group.due_at for group in task.groups), default=INFINITY)
    if shared:
        others = [group for other in tasks if other is not task for group in other.groups]
        for _, start in latest_starts(others)[:1]:
            ends_by = min(ends_by, start)
    return ends_by


def _largest(task: _Task, most: int, budget_s: float, point: OperatingPoint) -> int:
    """Most prefill tokens, up to `most`, with which the step stays within `budget_s`."""

    def fits(tokens: int) -> bool:
        chunk = split_chunk(task.queue, tokens, len(task.queue))
        return predict_s(task.lane, task.decodes, chunk, point) <= budget_s

    if fits(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _prefill_starts_by(task: _Task, rules: LocalRules, point: OperatingPoint, now: float) -> float:
    """When prefill must start so that the prompts that wait longest are in time, one by one."""
    first = task.queue[0]
    tokens = min(rules.chunk_tokens, first.pending_tokens)
    token_s = predict_s(task.lane, (), ((first, tokens),), point) / tokens
    starts_by, ahead = INFINITY, 0
    for seq in task.queue[:_AHEAD]:
        ahead += seq.pending_tokens
        starts_by = min(starts_by, _deadline(seq, rules, now) - ahead * token_s)
    return starts_by
