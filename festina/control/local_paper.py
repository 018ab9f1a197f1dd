"""The paper's local rule: one queue, highest slack consumption first (paper section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence as Items

from festina.control.choice import Choice, LocalRules, Wait, predict_s
from festina.control.lane import Lane
from festina.control.pace import INFINITY, paper_score
from festina.control.sequence import Sequence
from festina.types import OperatingPoint


def choose(
    lanes: Items[Lane],
    rules: LocalRules,
    point: OperatingPoint,
    slots: int,  # noqa: ARG001 - the paper does not look ahead at what others will need
    now: float,
) -> Choice | Wait:
    """The model of the most urgent task, its step filled greedily in order of score.

    Never waits while there is something to do.
    """
    tasks = [
        (*_score(lane, seq, rules, point, now), lane, seq)
        for lane in lanes
        for seq in (*lane.decodes(), *lane.prefills())
    ]
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
    return Wait(INFINITY)


def _score(
    lane: Lane, seq: Sequence, rules: LocalRules, point: OperatingPoint, now: float
) -> tuple[float, int]:
    if seq.decoding:
        if seq.outgrown:
            return INFINITY, -seq.number
        latency_s, beta = predict_s(lane, (seq,), (), point), 0.0
    else:
        unit = min(seq.pending_tokens, rules.chunk_tokens)
        latency_s, beta = predict_s(lane, (), ((seq, unit),), point), rules.beta
    slack_s = seq.due_at(rules.margin) - now
    age_s = now - seq.runnable_at
    return paper_score(latency_s * 1e3, slack_s * 1e3, age_s * 1e3, beta), -seq.number


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
