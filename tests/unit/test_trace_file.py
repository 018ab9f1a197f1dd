"""A trace that several processes append to: bounded, and never in the way of their work."""

import json
import os
import threading
from contextlib import closing
from pathlib import Path

import pytest

from festina.errors import ConfigError, TraceError
from festina.runtime.trace import file as trace_file
from festina.runtime.trace.file import TraceFile, begin_trace, end_trace, process_number

BOUND = 1 << 20


def lines_of(path):
    """The events of a trace that is still being written, as viewers read it."""
    return json.loads(path.read_text().rstrip().rstrip(",") + "]")


def until(condition):
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen")


def test_several_writers_make_one_array(tmp_path):
    path, warnings = tmp_path / "trace.json", []
    begin_trace(path)
    with (
        closing(TraceFile(path, BOUND, warnings.append)) as one,
        closing(TraceFile(path, BOUND, warnings.append)) as two,
    ):
        for number in range(2000):
            (one, two)[number % 2].add({"n": number})
    assert sorted(event["n"] for event in lines_of(path)) == list(range(2000))
    end_trace(path)
    events = json.loads(path.read_text())
    assert len(events) == 2001
    assert events[-1]["name"] == "end"
    assert warnings == []
    assert one.lost == two.lost == 0


def test_it_can_be_read_while_it_is_written(tmp_path):
    path = tmp_path / "trace.json"
    with closing(TraceFile(path, BOUND, print)) as trace:
        trace.add({"n": 1})
        until(lambda: path.exists() and path.stat().st_size > 2)
        assert lines_of(path) == [{"n": 1}]


def test_a_full_disk_ends_the_trace_with_one_warning_and_nothing_else():
    warnings = []
    begin_trace(Path("/dev/full"))
    with closing(TraceFile(Path("/dev/full"), BOUND, warnings.append)) as trace:
        trace.add({"n": 0})
        until(lambda: trace.error)
        for number in range(10):
            trace.add({"n": number})
    end_trace(Path("/dev/full"))
    (warning,) = warnings
    assert isinstance(warning, TraceError)
    assert "No space left" in str(warning)
    assert trace.lost == 11


def test_a_trace_that_cannot_be_opened_is_a_warning_to_those_who_append(tmp_path):
    warnings = []
    with closing(TraceFile(tmp_path / "absent" / "trace.json", BOUND, warnings.append)) as trace:
        until(lambda: trace.error)
        trace.add({"n": 1})
    assert "No such file" in str(warnings[0])
    assert trace.lost == 1


def test_a_trace_that_cannot_be_made_is_refused_at_the_start(tmp_path):
    with pytest.raises(ConfigError, match=r"trace\.file"):
        begin_trace(tmp_path / "absent" / "trace.json")


def test_the_file_is_bounded_and_still_proper(tmp_path):
    path, warnings = tmp_path / "trace.json", []
    begin_trace(path)
    with closing(TraceFile(path, 1000, warnings.append)) as trace:
        trace.add({"n": "x" * 1200})
        until(lambda: path.stat().st_size > 1000)
        size = path.stat().st_size
        trace.add({"n": 2})
        until(lambda: trace.error)
    assert path.stat().st_size == size
    assert trace.lost == 1
    assert "bound" in str(warnings[0])
    end_trace(path)
    assert len(json.loads(path.read_text())) == 2


def test_a_disk_that_hangs_costs_events_and_no_time(tmp_path, monkeypatch):
    monkeypatch.setattr(trace_file, "CLOSE_S", 0.05)
    monkeypatch.setattr(trace_file, "BUFFER_BYTES_MAX", 1000)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # nobody reads it, so it cannot even be opened
    with closing(TraceFile(pipe, BOUND, print)) as trace:
        for number in range(1000):
            trace.add({"n": number})
    assert 800 < trace.lost < 1000
    with pipe.open("rb") as reader:  # let its thread go
        assert reader.read(2) == b"[\n"


def test_a_gpu_has_the_same_number_for_everyone():
    assert process_number("gpu0") == process_number("gpu0") != process_number("gpu1")
    assert 0 < process_number("") < 2**31
