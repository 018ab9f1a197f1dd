"""What an agent's shell tells to those who watch: a trace, and the log."""

from __future__ import annotations

from collections import defaultdict, deque
from pathlib import Path

from msgspec.structs import replace

from festina.config import TraceConfig
from festina.engine.base import StepResult
from festina.errors import FestinaError
from festina.log import Field, Fields, Value, logger, tell, warn
from festina.messages import AnyMessage, Summary
from festina.runtime.protocol.agent_effects import (
    EngineEffect,
    LoadModel,
    ParkDevice,
    StartStep,
    UnloadModel,
    WakeDevice,
)
from festina.runtime.protocol.request_notes import RequestNote
from festina.runtime.trace.agent import AgentTrace
from festina.runtime.trace.file import TraceFile

LOG = logger("agent")
_EVENTS = {
    "decode": "request has its first token",
    "away": "request moves away",
    "here": "request moves here",
}


class AgentWatch:
    """Of one agent. Its owner closes it.

    Args:
        name: Of the agent.
        device: Kind of its device.
        config: Where a trace goes.
    """

    def __init__(self, name: str, device: str, config: TraceConfig) -> None:
        self._file: TraceFile | None = None
        self._trace: AgentTrace | None = None
        if config.file:
            self._file = TraceFile(Path(config.file), config.bytes_max, lambda e: warn(LOG, e))
            self._trace = AgentTrace(name, device, self._file.add)
        self._submitted: defaultdict[int, deque[float]] = defaultdict(deque)
        self._done_at: defaultdict[int, float] = defaultdict(float)

    def close(self) -> None:
        """Write what is left of the trace."""
        if self._file is not None:
            self._file.close()

    def serving(self, endpoint: str, device: str) -> None:
        """The agent takes requests."""
        tell(LOG, "serving", {"endpoint": endpoint, "device": device})

    def note(self, note: RequestNote, now: float) -> None:
        """Something has happened to a request."""
        if self._trace is not None:
            self._trace.request(note, now)
        if note.stage != "prefill":
            tell(LOG, _EVENTS.get(note.stage, f"request {note.stage}"), _fields(note))

    def sent(self, message: AnyMessage, now: float) -> AnyMessage:
        """What is about to be said, and shall be said instead."""
        if self._trace is None or self._file is None or not isinstance(message, Summary):
            return message
        self._trace.counters(message.gpu, now)
        if message.account is None or not self._file.lost:
            return message
        return replace(message, account=replace(message.account, lost_events=self._file.lost))

    def begun(self, thread: int, now: float) -> None:
        """A job was given to a thread of the engine, which does one after the other."""
        self._submitted[thread].append(now)

    def done(self, thread: int, job: EngineEffect, outcome: object, now: float) -> None:
        """It has ended, well or with an error."""
        begin = max(self._submitted[thread].popleft(), self._done_at[thread])
        self._done_at[thread] = now
        if isinstance(job, StartStep):
            if self._trace is not None and isinstance(outcome, StepResult):
                self._trace.step(job.batch, outcome, now)
            return
        name, model = _told(job)
        if not name:
            return
        error = outcome if isinstance(outcome, FestinaError) else None
        if self._trace is not None:
            self._trace.span(name, model, begin, now, failed=error is not None)
        fields: dict[Field, Value] = {"seconds": round(now - begin, 3)}
        if model:
            fields["model"] = model
        if error is not None:
            fields["code"] = error.code
        tell(LOG, f"{name} failed" if error else name, fields)


def _told(job: EngineEffect) -> tuple[str, str]:
    """What to call a job, and its model; "" for those that are not told of."""
    match job:
        case LoadModel(deployment):
            return "load", deployment.name
        case UnloadModel(model):
            return "unload", model
        case ParkDevice():
            return "park", ""
        case WakeDevice():
            return "wake", ""
    return "", ""


def _fields(note: RequestNote) -> Fields:
    fields: dict[Field, Value] = {
        "request_id": note.request_id,
        "model": note.model,
        "seconds": round(note.age_ms / 1e3, 4),
        "input_tokens": note.input_tokens,
        "output_tokens": note.output_tokens,
    }
    if note.why:
        fields["reason" if note.stage == "finished" else "code"] = note.why
    if note.stage == "finished":
        fields |= {
            "energy_j": round(note.energy_j, 6),
            "energy_source": note.energy_source,
            "preemptions": note.preemptions,
            "moves": note.moves,
        }
    return fields
