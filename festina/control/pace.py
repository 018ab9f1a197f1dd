"""When a step may wait: latest starts that keep every deadline, and paced releases (DESIGN 4.2).

Times are seconds of one clock, durations milliseconds. All functions are pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

INFINITY = float("inf")

_OBJECTIVE_S_MIN = 1e-6
"""Shorter objectives are all as urgent as this one."""


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """The decodes of one model that will share its next step.

    Attributes:
        model: Deployment name.
        due_at: When their tokens must be out, the earliest of them.
        paced_at: When their tokens should be out, the earliest of them; ≤ `due_at`.
        latency_ms: Predicted duration of their step.
    """

    model: str
    due_at: float
    paced_at: float
    latency_ms: float


def latest_starts(groups: Iterable[DecodeGroup]) -> list[tuple[DecodeGroup, float]]:
    """Latest start of each group so that all meet their deadlines one after the other.

    Backwards from the last deadline: each group must end before its own deadline and before the
    latest start of the group after it (earliest deadline first is optimal on one processor).

    Returns:
        Groups in order of deadline with their latest start; a start in the past means that not
        all deadlines can be met.
    """
    ordered = sorted(groups, key=lambda group: (group.due_at, group.model))
    starts: list[tuple[DecodeGroup, float]] = []
    following = INFINITY
    for group in reversed(ordered):
        following = min(group.due_at, following) - group.latency_ms / 1e3
        starts.append((group, following))
    starts.reverse()
    return starts


def release_at(group: DecodeGroup, latest_start: float) -> float:
    """When a group's step should start: paced, but never after its latest start."""
    return min(group.paced_at - group.latency_ms / 1e3, latest_start)


def rolled_deadline(start: float, objective_s: float, now: float) -> float:
    """Deadline of a request, rolled forward once it is missed.

    A missed deadline start + objective becomes start + 2·objective, then 4·, and so on: the late
    do not crowd out those that can still be in time, and yet every one of them comes first again
    before its age has doubled, so none starves.
    """
    objective_s = max(objective_s, _OBJECTIVE_S_MIN)  # doubling 0 would never end
    deadline = start + objective_s
    while deadline < now:
        objective_s *= 2.0
        deadline = start + objective_s
    return deadline


def paper_score(latency_ms: float, slack_ms: float, age_ms: float, beta: float) -> float:
    """Slack consumption ratio, paper section 3.4, equation 4; a denominator ≤ 0 is most urgent.

    Args:
        latency_ms: Predicted time of the unit: one decode step or one prefill chunk.
        slack_ms: Time to the deadline.
        age_ms: Time since the task became runnable.
        beta: 0 for decode, 1 for prefill.
    """
    remaining = slack_ms - beta * age_ms
    return latency_ms / remaining if remaining > 0.0 else INFINITY
