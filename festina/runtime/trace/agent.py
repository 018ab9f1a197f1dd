"""One GPU's timeline and its requests' lives, as events of a trace (`festina.runtime.trace.file`).

The GPU is a process: a thread for each deployment, with its steps, loads and unloads, and one for
what concerns the whole GPU; clock, power, SMs in use and requests are counters. A request is a row
of its own, which it keeps when it moves: from its submission to its end, and within that its
waiting, its prefill and its decode. There are counts of tokens, never tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from festina.engine.base import Batch, StepResult
from festina.runtime.protocol.request_notes import RequestNote
from festina.runtime.trace.file import Event, process_number
from festina.types import GpuSummary

_WHOLE_GPU = 1
_PARTS = {"arrived": "waiting", "prefill": "prefill", "decode": "decode"}
"""Stages that begin a part of a request's life."""
_ENDS = ("finished", "failed", "cancelled", "away")


class AgentTrace:
    """Tells a trace of one agent.

    Args:
        name: Of the agent.
        device: Kind of its device.
        add: Takes an event of the trace.
    """

    def __init__(self, name: str, device: str, add: Callable[[Event], None]) -> None:
        self._process = process_number(name)
        self._add = add
        self._threads: dict[str, int] = {}
        self._counters: dict[str, float] = {}
        self._parts: dict[str, str] = {}
        self._name("process_name", 0, name)
        self._name("process_labels", 0, device, key="labels")
        self._name("thread_name", _WHOLE_GPU, "GPU")

    def step(self, batch: Batch, result: StepResult, now: float) -> None:
        """A step has ended at `now`, in seconds of the machine's clock."""
        sizes = [(len(chunk.token_ids), chunk.output_index) for chunk in batch.chunks]
        decodes = sum(size == 1 and index > 0 for size, index in sizes)
        tokens = sum(size for size, _ in sizes)
        prompts = len(batch.chunks) - decodes
        name = "prefill + decode" if decodes and prompts else "decode" if decodes else "prefill"
        begin = now - result.latency_ms / 1e3
        self._span(
            self._thread(batch.model),
            name,
            begin,
            now,
            {
                "sequences": len(batch.chunks),
                "prefill_tokens": tokens - decodes,
                "decode_tokens": decodes,
                "clock_mhz": batch.point.clock_mhz,
                "sms": batch.partition.sms,
                "rung": batch.partition.rung,
                "side": batch.partition.side,
                "predicted_ms": batch.predicted_ms,
            },
        )

    def span(self, name: str, model: str, begin: float, now: float, *, failed: bool) -> None:
        """Something else the device was at; `model` is "" for what concerns all of it."""
        thread = self._thread(model) if model else _WHOLE_GPU
        self._span(thread, name, begin, now, {"failed": failed} if failed else {})

    def counters(self, gpu: GpuSummary, now: float) -> None:
        """The device now; what has not changed is not told again."""
        values = {
            "clock MHz": float(gpu.clock_mhz),
            f"power W ({gpu.power_source.value})": round(gpu.power_w, 1),
            "SMs in use": float(gpu.sms_total - gpu.sms_free),
            "requests running": float(sum(model.running for model in gpu.models)),
            "requests waiting": float(sum(model.waiting for model in gpu.models)),
        }
        for name, value in values.items():
            if self._counters.get(name) != value:
                self._counters[name] = value
                self._add(self._event("C", now, 0, name) | {"args": {"value": value}})

    def request(self, note: RequestNote, now: float) -> None:
        """A request has come to another stage of its life."""
        for event in self._request(note, now):
            self._add(event)

    def _request(self, note: RequestNote, now: float) -> Iterator[Event]:
        life = f"request {note.model}"
        if note.stage == "queued":
            return
        if note.stage in ("arrived", "here"):
            begin = now - note.age_ms / 1e3 if note.stage == "arrived" else now
            yield self._life("b", note, begin, life)
            part = "waiting" if note.stage == "arrived" else "decode"
            self._parts[note.request_id] = part
            yield self._life("b", note, begin, part)
            return
        before = self._parts.pop(note.request_id, None)
        if before is None:  # it was another client's, or has ended
            return
        yield self._life("e", note, now, before)
        if note.stage in _ENDS:
            yield self._life("e", note, now, life)
        else:
            part = self._parts[note.request_id] = _PARTS[note.stage]
            yield self._life("b", note, now, part)

    def _life(self, phase: str, note: RequestNote, at: float, name: str) -> Event:
        event = self._event(phase, at, _WHOLE_GPU, name)
        event |= {"cat": "request", "id": note.request_id}
        if name.startswith("request"):
            event["args"] = {
                "stage": note.stage,
                "input_tokens": note.input_tokens,
                "output_tokens": note.output_tokens,
                "energy_j": note.energy_j,
                "energy_source": note.energy_source,
                "why": note.why,
                "preemptions": note.preemptions,
                "moves": note.moves,
            }
        return event

    def _thread(self, model: str) -> int:
        if model not in self._threads:
            self._threads[model] = _WHOLE_GPU + 1 + len(self._threads)
            self._name("thread_name", self._threads[model], model)
        return self._threads[model]

    def _span(self, thread: int, name: str, begin: float, end: float, args: Event) -> None:
        span = self._event("X", begin, thread, name)
        self._add(span | {"dur": max(0.0, end - begin) * 1e6, "args": args})

    def _name(self, what: str, thread: int, value: str, key: str = "name") -> None:
        self._add(self._event("M", 0.0, thread, what) | {"args": {key: value}})

    def _event(self, phase: str, at: float, thread: int, name: str) -> Event:
        return {"name": name, "ph": phase, "pid": self._process, "tid": thread, "ts": at * 1e6}
