"""The paper's local rule: one queue, highest slack consumption first (paper section 3.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence as Items

from festina.control.choice import Choice, LocalRules, Wait, predict_s
from festina.control.lane import Lane
from festina.control.sequence import Sequence
from festina.types import OperatingPoint


def choose(
    rules: LocalRules,
    lanes: Items[Lane],
    point: OperatingPoint,
    slots: int,  # noqa: ARG001 - the paper does not look ahead at what others will need
    now: float,
) -> Choice | Wait:
    """The model of the most urgent task, its step filled greedily in order of score.

    Never waits while there is something to do.
    """
    tasks = [task for lane in lanes for task in _tasks(lane, rules, point, now)]
    tasks.sort(key=lambda task: task[:2], reverse=True)
    chosen: dict[str, Choice] = {}
    for _, _, lane, _ in tasks:
        if lane.model not in chosen:
            chosen[lane.model] = _fill(
                lane, [seq for *_, seq in tasks if seq.model == lane.model], rules
            )
        choice = chosen[lane.model]
        if choice.decodes or choice.prefills:
            return choice
    return Wait(math.inf)


def _tasks(
    lane: Lane, rules: LocalRules, point: OperatingPoint, now: float
) -> list[tuple[float, int, Lane, Sequence]]:
    """The lane's tasks with their scores. Its decodes share one step, so they share its latency."""
    decodes = lane.decodes()
    step_s = predict_s(lane, decodes[: rules.batch_max], (), point) if decodes else 0.0
    tasks = [(_decode_score(seq, step_s, rules, now), -seq.number, lane, seq) for seq in decodes]
    units: dict[tuple[int, int], float] = {}
    for seq in lane.prefills():
        unit = min(seq.pending_tokens, rules.chunk_tokens), seq.cached
        if unit not in units:
            units[unit] = predict_s(lane, (), ((seq, unit[0]),), point)
        score = _score(seq, units[unit], rules, now, rules.beta)
        tasks.append((score, -seq.number, lane, seq))
    return tasks


def _decode_score(seq: Sequence, step_s: float, rules: LocalRules, now: float) -> float:
    return math.inf if seq.outgrown else _score(seq, step_s, rules, now, 0.0)


def _score(seq: Sequence, latency_s: float, rules: LocalRules, now: float, beta: float) -> float:
    slack_s = seq.due_at(rules.margin) - now
    age_s = now - seq.runnable_at
    return paper_score(latency_s * 1e3, slack_s * 1e3, age_s * 1e3, beta)


def paper_score(latency_ms: float, slack_ms: float, age_ms: float, beta: float) -> float:
    """Slack consumption ratio, paper section 3.4, equation 4; a denominator ≤ 0 is most urgent.

    Args:
        latency_ms: Predicted time of the unit: one decode step or one prefill chunk.
        slack_ms: Time to the deadline.
        age_ms: Time since the task became runnable.
        beta: 0 for decode, 1 for prefill.
    """
    remaining = slack_ms - beta * age_ms
    return latency_ms / remaining if remaining > 0.0 else math.inf


def _fill(lane: Lane, queue: Items[Sequence], rules: LocalRules) -> Choice:
    decodes: list[Sequence] = []
    prefills: list[tuple[Sequence, int]] = []
    chunk, uncommitted = rules.chunk_tokens, lane.uncommitted_blocks()
    for seq in queue:
        if len(decodes) + len(prefills) == rules.batch_max:
            break
        if seq.decoding:
            decodes.append(seq)
            continue
        if not seq.blocks:
            needed = lane.blocks_for(seq.expected_tokens)
            if needed > uncommitted and (lane.running or prefills):
                continue
            uncommitted -= needed
        if chunk > 0:
            prefills.append((seq, min(chunk, seq.pending_tokens)))
            chunk -= prefills[-1][1]
    return Choice(lane, tuple(decodes), tuple(prefills))
