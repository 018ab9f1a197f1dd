"""What happens to requests at an agent, for those who watch: traces and logs.

Notes are effects like others, so the logic stays without I/O. They hold no text and no tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from festina.messages import Failed, Finished
from festina.runtime.protocol.agent_requests import Request

Stage = Literal[
    "arrived", "queued", "prefill", "decode", "finished", "failed", "cancelled", "away", "here"
]
"""Its stages in order; "away" and "here" where it moves to another agent and from one."""


@dataclass(frozen=True, slots=True)
class RequestNote:
    """A request has come to a stage.

    Attributes:
        request_id: The client's name for it.
        model: Deployment name.
        stage: Which.
        age_ms: Since it was submitted.
        input_tokens: Of its prompt; 0 before they are counted.
        output_tokens: So far.
        energy_j: What it cost; 0 before it has finished.
        energy_source: How that came about; "" before it has finished.
        why: Of its end: a finish reason or the code of an error.
        preemptions: Times it lost its KV blocks.
        moves: Times it has moved.
    """

    request_id: str
    model: str
    stage: Stage
    age_ms: float
    input_tokens: int = 0
    output_tokens: int = 0
    energy_j: float = 0.0
    energy_source: str = ""
    why: str = ""
    preemptions: int = 0
    moves: int = 0


def note(request: Request, stage: Stage, now: float) -> RequestNote:
    """A note of a request as it is now."""
    seq = request.sequence
    return RequestNote(
        request_id=request.request_id,
        model=request.message.model,
        stage=stage,
        age_ms=(now - request.submitted_at) * 1e3,
        input_tokens=0 if seq is None else seq.prompt_tokens,
        output_tokens=0 if seq is None else seq.output_tokens,
        preemptions=0 if seq is None else seq.preemptions,
        moves=request.moves,
    )


def note_of_end(request: Request, last: Finished | Failed | None, now: float) -> RequestNote:
    """A note of a request that has ended; None: its client is gone, or wants no more of it."""
    if not isinstance(last, Finished):
        told = note(request, "cancelled" if last is None else "failed", now)
        return replace(told, why="" if last is None else last.error.code)
    usage = last.usage
    return replace(
        note(request, "finished", now),
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        energy_j=usage.energy_j,
        energy_source=usage.energy_source.value,
        why=last.reason.value,
    )
