"""What a local rule decides, and what it may know: shared by `paper` and `festina`."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass

from festina.control.lane import Lane
from festina.control.sequence import Sequence
from festina.control.step_time import StepWork, predict_ms
from festina.types import OperatingPoint


@dataclass(frozen=True, slots=True)
class LocalRules:
    """Settings of local scheduling.

    Attributes:
        batch_max: Sequences in one step.
        chunk_tokens: Prefill tokens in one step, at most.
        margin: Share of an objective kept in reserve.
        beta: Weight of age in the paper's score, for prefill.
        pacing: Space decode steps (`festina` only; off for the ablation).
        sigmas: Of a predicted duration's error, added to it (`festina` only).
    """

    batch_max: int
    chunk_tokens: int
    margin: float
    beta: float = 1.0
    pacing: bool = True
    sigmas: float = 3.0

    @property
    def chunk_min(self) -> int:
        """Smallest chunk worth a step of its own: each step reads all the weights."""
        return max(1, min(64, self.chunk_tokens // 4))


@dataclass(frozen=True, slots=True)
class Choice:
    """The next step of one model.

    Attributes:
        lane: Whose step.
        decodes: Sequences that get one more token.
        prefills: Sequences with the number of their prompt tokens to process.
    """

    lane: Lane
    decodes: tuple[Sequence, ...]
    prefills: tuple[tuple[Sequence, int], ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing should start before this time, unless something changes."""

    until: float


def step_work(decodes: Items[Sequence], prefills: Items[tuple[Sequence, int]]) -> StepWork:
    """The work of a step over these sequences."""
    new = sum(tokens for _, tokens in prefills)
    return StepWork(
        prefill_tokens=new,
        decodes=len(decodes),
        context_tokens=sum(seq.cached for seq in decodes),
        cached_mean=sum(seq.cached * tokens for seq, tokens in prefills) / new if new else 0.0,
    )


def predict_s(
    lane: Lane,
    decodes: Items[Sequence],
    prefills: Items[tuple[Sequence, int]],
    point: OperatingPoint,
) -> float:
    """Predicted duration of such a step, in seconds."""
    return predict_ms(lane.step_time.cost(point), step_work(decodes, prefills)) / 1e3
