"""Closed loops of coding agents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from festina.simulator.workloads.draft import Setting
from festina.simulator.workloads.sources.sessions import (
    FAMILIES,
    Session,
    draw_sessions,
    read_sessions,
)

SHRINK = 4
THINK_S_MAX = 60.0

Column = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Agents:
    """Requests of several sessions, session after session, as columns of equal length.

    Attributes:
        t_s: When a session begins; think time for the requests after its first.
        model: len(FAMILIES) per group.
        input_tokens: ≥ 1.
        cached_tokens: Of these, what the previous request has sent.
        output_tokens: ≥ 1.
        follows: Row of the previous request of the session, or -1.
    """

    t_s: Column
    model: Column
    input_tokens: Column
    cached_tokens: Column
    output_tokens: Column
    follows: Column


def run_agents(setting: Setting, *, sessions: int, groups: int, duration_s: float) -> Agents:
    """Sessions that begin at any time of the window, each for as long as it lasts.

    Prompts and prefix hits are a quarter of the recorded ones, to fit the models' contexts; think
    time is at most 60 s. A session ends with the request that it would have sent last within the
    window, had answers taken as long as recorded.

    Args:
        setting: Traces and chance.
        sessions: How many.
        groups: Of models, which sessions take in turn.
        duration_s: Length of the window.
    """
    rng = setting.rng
    all_ = draw_sessions(rng) if setting.traces is None else read_sessions(setting.traces)
    chosen = rng.choice(len(all_), sessions, replace=sessions > len(all_))
    starts_s = rng.random(sessions) * duration_s
    parts: list[Agents] = []
    rows = 0
    for index, (session, start_s) in enumerate(zip(chosen.tolist(), starts_s, strict=True)):
        part = _run(all_[session], float(start_s), duration_s, index % groups, rows)
        parts.append(part)
        rows += len(part.t_s)
    names = Agents.__slots__
    return Agents(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _run(session: Session, start_s: float, duration_s: float, group: int, row: int) -> Agents:
    think_s = np.minimum(session.think_s, THINK_S_MAX)
    waits = think_s[1:] + session.api_s[:-1]
    sent_s = start_s + np.concatenate([[0.0], np.cumsum(waits)])
    count = int(np.searchsorted(sent_s, duration_s))
    follows = row + np.arange(-1, count - 1)
    follows[0] = -1
    return Agents(
        t_s=np.concatenate([[start_s], think_s[1:count]]),
        model=group * len(FAMILIES) + session.family[:count],
        input_tokens=np.maximum(session.input_tokens[:count] // SHRINK, 1),
        cached_tokens=session.cached_tokens[:count] // SHRINK,
        output_tokens=session.output_tokens[:count],
        follows=follows,
    )
