"""What a consolidator does and why, as events of a trace (`festina.runtime.trace.file`).

Each GPU is a process with a span while it is emptied and one while it is parked; joules expected
and saved are arguments and counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from festina.messages import ConsolidationEvent
from festina.runtime.trace.file import Event, process_number

_SPANS = {"empty": "emptying", "wake": "waking", "parked": "parked"}
"""Kind of event to the span that it begins; all others only end one."""
_THREAD = 1
"""Of what concerns the whole GPU."""


class ConsolidationTrace:
    """Tells a trace of plans.

    Args:
        add: Takes an event of the trace.
    """

    def __init__(self, add: Callable[[Event], None]) -> None:
        self._add = add
        self._open: dict[str, str] = {}
        self._saved_j: dict[str, float] = {}

    def tell(self, events: Iterable[ConsolidationEvent], now: float) -> None:
        """What has just happened, in order; `now` in seconds of the machine's clock."""
        for event in events:
            for line in self._lines(event, now * 1e6):
                self._add(line)

    def _lines(self, event: ConsolidationEvent, at_us: float) -> Iterator[Event]:
        told: Event = {
            "why": event.why,
            "plan": event.plan,
            "expected_j": event.expected_j,
            "saved_j": event.saved_j,
        }
        if self._open.pop(event.agent, None) is not None:
            yield _event(event, "E", at_us, told)
        yield _event(event, "i", at_us, told, name=event.kind)
        if event.kind in _SPANS:
            self._open[event.agent] = _SPANS[event.kind]
            yield _event(event, "B", at_us, told, name=_SPANS[event.kind])
        if event.kind == "ended":
            self._saved_j[event.agent] = self._saved_j.get(event.agent, 0.0) + event.saved_j
            yield _event(event, "C", at_us, {"J": self._saved_j[event.agent]}, name="saved J")


def _event(
    event: ConsolidationEvent, phase: str, at_us: float, args: Event, name: str = ""
) -> Event:
    line: Event = {"ph": phase, "pid": process_number(event.agent), "tid": _THREAD, "ts": at_us}
    return line | ({"name": name} if name else {}) | {"args": args}
