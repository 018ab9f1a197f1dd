"""Structured logs of processes: lines of JSON or text on stderr, by the standard library.

What is told is an event's name and fields of a fixed set: there is none for prompts, outputs or
texts of errors, so none can be logged. Records of other libraries lose their arguments for the same
reason. A reader that is too slow costs lines, never the work that they tell of.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

import msgspec

from festina.config import LogConfig
from festina.errors import FestinaError

Field = Literal[
    "agent", "code", "device", "endpoint", "energy_j", "energy_source", "epoch", "expected_j",
    "input_tokens", "kind", "model", "moves", "output_tokens", "path", "pause_s", "plan",
    "preemptions", "reason", "request_id", "saved_j", "seconds", "stage", "status", "ttft_ms",
]  # fmt: skip
Value = str | int | float
Fields = Mapping[Field, Value]
Kind = type[BaseException]

ROOT = "festina"
LINES_MAX = 10_000
"""Lines that wait to be written; more are dropped."""
CLOSE_S = 1.0
"""How long the last lines may take."""
TEXT_MAX = 200
"""Characters of a field."""
_FIELDS = "festina_fields"


def logger(name: str) -> logging.Logger:
    """The logger of a kind of process."""
    return logging.getLogger(f"{ROOT}.{name}")


def tell(log: logging.Logger, event: str, fields: Fields, level: int = logging.INFO) -> None:
    """Something has happened.

    Args:
        log: From `logger`.
        event: What, in constant words.
        fields: Of which request, model and so on.
        level: As the standard library has it.
    """
    if log.isEnabledFor(level):
        log.log(level, event, extra={_FIELDS: fields})


def warn(log: logging.Logger, error: FestinaError) -> None:
    """Something goes on worse than it should; for errors of our own, which quote no request."""
    log.warning("%s: %s", error.code, error, extra={_FIELDS: {"code": error.code}})


@contextmanager
def logging_to_stderr(config: LogConfig, process: str) -> Iterator[None]:
    """Inside, this process logs as the settings say.

    Args:
        config: Format and level.
        process: Name of this process.
    """
    root = logging.getLogger()
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(JsonLines(process) if config.format == "json" else TextLines(process))
    handler = _Aside(to_stderr)
    level = logging.WARNING if config.format == "off" else config.level.upper()
    logging.getLogger(ROOT).setLevel(level)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        logging.getLogger(ROOT).setLevel(logging.NOTSET)
        handler.close()


def crash_told_as_json(process: str) -> Callable[[Kind, BaseException, TracebackType | None], None]:
    """An exception hook for a process that logs JSON: a traceback's texts may quote a request.

    Args:
        process: Name of this process.
    """
    lines = JsonLines(process)

    def tell_crash(kind: Kind, error: BaseException, trace: TracebackType | None) -> None:
        name, level = f"{ROOT}.{process}", logging.CRITICAL
        exc_info = (kind, error, trace)
        record = logging.LogRecord(name, level, "", 0, "process crashes", None, exc_info)
        sys.stderr.write(lines.format(record) + "\n")

    return tell_crash


class _Aside(logging.Handler):
    """Lets a thread write, as long as that keeps up; it may hang for good and stops nobody.

    Args:
        handler: Writes.
    """

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler
        self._records: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Records that are not written yet."""
        return self._records.qsize()

    def emit(self, record: logging.LogRecord) -> None:
        """Drop what there is no room for."""
        if self.waiting < LINES_MAX:
            self._records.put(record)

    def close(self) -> None:
        """Write what is left, for a while at most."""
        self._records.put(None)
        self._thread.join(CLOSE_S)
        super().close()

    def _run(self) -> None:
        while (record := self._records.get()) is not None:
            self._handler.handle(record)


class _Lines(logging.Formatter):
    """A record as one line.

    Args:
        process: Name of this process.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process


class JsonLines(_Lines):
    """In JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "event": _event(record),
        }
        if not _ours(record):
            line["logger"] = record.name
        line |= {name: _short(value) for name, value in _fields(record).items()}
        line |= _exception(record)
        return msgspec.json.encode(line).decode()


class TextLines(_Lines):
    """For people."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        facts = _fields(record) | _exception(record)
        told = " ".join(f"{name}={_short(value)}" for name, value in facts.items())
        level = record.levelname.lower()
        return f"{level}: {self._process}: {_event(record)}" + (f" ({told})" if told else "")


def _ours(record: logging.LogRecord) -> bool:
    return record.name.startswith(f"{ROOT}.")


def _event(record: logging.LogRecord) -> str:
    """Others' messages without their arguments, which may quote a request."""
    return record.getMessage() if _ours(record) else str(record.msg)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return dict(getattr(record, _FIELDS, {}))


def _short(value: object) -> object:
    return value[:TEXT_MAX] if isinstance(value, str) else value


def _exception(record: logging.LogRecord) -> dict[str, object]:
    """Its type and where it was raised; its text may quote a request."""
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    kind, _, trace = record.exc_info
    return {"exception": kind.__name__, "where": _where(trace)}


def _where(trace: TracebackType | None) -> str:
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_qualname}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(places)
