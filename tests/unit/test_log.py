"""Logs: a line an event, fields of a fixed set, and nothing that somebody else wrote."""

import io
import json
import logging
import sys
import threading

import pytest

from festina.config import LogConfig
from festina.errors import TraceError
from festina.log import TEXT_MAX, _Aside, crash_told_as_json, logger, logging_to_stderr, tell, warn

LOG = logger("test")
SECRET = "my secret prompt"


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_an_event_is_a_line_of_json_with_its_fields(capsys):
    with logging_to_stderr(LogConfig(format="json"), "gpu0"):
        tell(LOG, "request finished", {"request_id": "r1", "output_tokens": 3, "energy_j": 0.5})
        tell(LOG, "of no interest", {}, logging.DEBUG)
    (line,) = lines(capsys.readouterr().err)
    assert line.pop("time").startswith("20")
    assert line == {
        "level": "info",
        "process": "gpu0",
        "event": "request finished",
        "request_id": "r1",
        "output_tokens": 3,
        "energy_j": 0.5,
    }


def test_text_is_for_people(capsys):
    with logging_to_stderr(LogConfig(format="text"), "gpu0"):
        tell(LOG, "request finished", {"request_id": "r1", "output_tokens": 3})
    assert (
        capsys.readouterr().err == "info: gpu0: request finished (request_id=r1 output_tokens=3)\n"
    )


def test_off_tells_warnings_alone_and_the_end_leaves_no_handler(capsys):
    handlers = list(logging.getLogger().handlers)
    with logging_to_stderr(LogConfig(), "gpu0"):
        tell(LOG, "request finished", {"request_id": "r1"})
        warn(LOG, TraceError("the disk is full", field="trace.file"))
    assert (
        capsys.readouterr().err
        == "warning: gpu0: trace: trace.file: the disk is full (code=trace)\n"
    )
    assert logging.getLogger().handlers == handlers


def test_what_others_log_loses_its_arguments_and_errors_their_texts(capsys):
    other = logging.getLogger("uvicorn.error")
    with logging_to_stderr(LogConfig(format="json"), "gateway"):
        other.warning("cannot read %r", SECRET)
        try:
            raise ValueError(SECRET)
        except ValueError:
            other.exception("a bug with %s", SECRET)
    text = capsys.readouterr().err
    first, second = lines(text)
    assert (first["logger"], first["event"]) == ("uvicorn.error", "cannot read %r")
    assert second["exception"] == "ValueError"
    assert "test_what_others_log" in second["where"]
    assert SECRET not in text


def test_a_crash_is_a_line_without_the_texts_of_its_traceback(capsys):
    with pytest.raises(ValueError, match="secret") as caught:
        raise ValueError(SECRET)
    crash_told_as_json("gpu0")(ValueError, caught.value, caught.tb)
    text = capsys.readouterr().err
    (line,) = lines(text)
    assert (line["level"], line["event"]) == ("critical", "process crashes")
    assert line["exception"] == "ValueError"
    assert "test_a_crash" in line["where"]
    assert SECRET not in text


def test_long_texts_are_cut(capsys):
    with logging_to_stderr(LogConfig(format="json"), "gpu0"):
        tell(LOG, "request finished", {"request_id": "r" * 1000})
    assert len(lines(capsys.readouterr().err)[0]["request_id"]) == TEXT_MAX


def test_a_reader_that_does_not_read_stops_nobody(monkeypatch):
    class Stuck(io.StringIO):
        def write(self, _):
            free.wait()
            return 0

    free = threading.Event()
    monkeypatch.setattr(sys, "stderr", Stuck())
    monkeypatch.setattr("festina.log.LINES_MAX", 10)
    monkeypatch.setattr("festina.log.CLOSE_S", 0.01)
    with logging_to_stderr(LogConfig(format="json"), "gpu0"):
        (handler,) = [h for h in logging.getLogger().handlers if isinstance(h, _Aside)]
        for _ in range(100):
            tell(LOG, "request finished", {})
        assert handler.waiting == 10
    free.set()
