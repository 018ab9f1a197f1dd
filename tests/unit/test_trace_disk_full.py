"""A trace whose disk is full ends; what it tells of goes on."""

from pathlib import Path

from festina.errors import TraceError
from festina.messages import ConsolidationEvent
from festina.report.consolidation_trace import ConsolidationTrace
from festina.runtime.consolidator import _trace

EVENT = ConsolidationEvent(0.0, 1, "empty", "gpu0", "few requests")


def test_the_first_write_that_fails_is_told_once_and_the_work_goes_on(tmp_path: Path, capsys):
    trace = ConsolidationTrace(tmp_path / "trace.json")
    _trace(trace, [EVENT], 1.0)
    assert trace.error is None
    trace._file.close()
    with Path("/dev/full").open("wb", buffering=0) as full:
        trace._file = full
        for second in range(3):
            _trace(trace, [EVENT], 2.0 + second)
    assert isinstance(trace.error, TraceError)
    assert "No space left" in str(trace.error)
    assert trace.failed
    assert capsys.readouterr().err.count("warning: trace:") == 1
    assert b"few requests" in (tmp_path / "trace.json").read_bytes()
