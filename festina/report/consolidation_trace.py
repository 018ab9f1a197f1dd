"""What a consolidator does and why, as a trace for ui.perfetto.dev, while it happens.

The file is a JSON array without its end, which viewers accept, so that a process that is killed
leaves a trace that can be read. Each GPU is a process with a span while it is emptied and one while
it is parked; joules expected and saved are arguments and counters.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from festina.errors import ConfigError, TraceError
from festina.messages import ConsolidationEvent

Event = dict[str, object]

_SPANS = {"empty": "emptying", "wake": "waking", "parked": "parked"}
"""Kind of event to the span that it begins; all others only end one."""


class ConsolidationTrace:
    """Appends to a file. A file that cannot be written any more is given up, the work goes on.

    Args:
        path: The file; one that is there is replaced.

    Raises:
        ConfigError: It cannot be written.

    Attributes:
        error: Why it was given up.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO | None
        try:
            self._file = path.open("wb", buffering=0)
            self._file.write(b"[\n")
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be written: {error.strerror}",
                field="consolidator.trace",
                expected="a file",
            ) from error
        self._path = path
        self.error: TraceError | None = None
        self._gpus: dict[str, int] = {}
        self._open: dict[str, str] = {}
        self._saved_j: dict[str, float] = {}

    @property
    def failed(self) -> bool:
        """Whether it has been given up."""
        return self._file is None

    def write(self, events: Iterable[ConsolidationEvent], now: float) -> None:
        """What has just happened, in order; `now` in seconds of one clock."""
        for event in events:
            for line in self._lines(event, now * 1e6):
                self._append(msgspec.json.encode(line) + b",\n")

    def _append(self, line: bytes) -> None:
        if self._file is None:
            return
        try:
            self._file.write(line)
        except OSError as error:  # the disk is full, say: a trace is not worth the cluster
            self.error = TraceError(
                f"{self._path} cannot be written any more, so it ends here: {error.strerror}",
                field="consolidator.trace",
                expected="room on its disk",
            )
            self.close()

    def _lines(self, event: ConsolidationEvent, at_us: float) -> Iterable[Event]:
        if event.agent not in self._gpus:
            self._gpus[event.agent] = len(self._gpus) + 1
            name = {"name": event.agent}
            yield self._event(event, "M", at_us, name="process_name", args=name)
        told = {
            "why": event.why,
            "plan": event.plan,
            "expected_j": event.expected_j,
            "saved_j": event.saved_j,
        }
        if self._open.pop(event.agent, None) is not None:
            yield self._event(event, "E", at_us, args=told)
        yield self._event(event, "i", at_us, name=event.kind, args=told)
        if event.kind in _SPANS:
            self._open[event.agent] = _SPANS[event.kind]
            yield self._event(event, "B", at_us, name=_SPANS[event.kind], args=told)
        if event.kind == "ended":
            self._saved_j[event.agent] = self._saved_j.get(event.agent, 0.0) + event.saved_j
            counter = {"J": self._saved_j[event.agent]}
            yield self._event(event, "C", at_us, name="saved J", args=counter)

    def _event(
        self,
        event: ConsolidationEvent,
        phase: str,
        at_us: float,
        *,
        args: dict[str, object] | dict[str, str] | dict[str, float],
        name: str = "",
    ) -> Event:
        line: Event = {"ph": phase, "pid": self._gpus[event.agent], "tid": 1, "ts": at_us}
        if name:
            line["name"] = name
        return line | {"args": args}

    def close(self) -> None:
        """The end."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def __enter__(self) -> ConsolidationTrace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
