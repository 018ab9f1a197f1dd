import gzip

import numpy as np
import pytest

from festina.errors import BadRequestError
from festina.workload.trace import (
    TraceRow,
    assign_models,
    read_trace,
    rename_models,
    shape_trace,
)

PLAIN = "t_s,model,input_tokens,output_tokens\n2.5,b,7,3\n0.0,a,5,2\n"
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n"
    "2023-11-16 18:15:50.9951690,396,109\n"
)


def test_a_plain_trace_is_read_by_time(tmp_path):
    file = tmp_path / "trace.csv"
    file.write_text(PLAIN)
    assert read_trace(file) == [TraceRow(0.0, "a", 5, 2), TraceRow(2.5, "b", 7, 3)]


def test_a_trace_may_name_no_models_and_have_more_columns(tmp_path):
    file = tmp_path / "trace.csv"
    file.write_text("t_s,input_tokens,output_tokens,hash_ids\n1,5,2,0 1 2\n")
    assert read_trace(file) == [TraceRow(1.0, "", 5, 2)]


@pytest.mark.parametrize("zone", ["", "+00:00"])
def test_an_azure_trace_counts_from_its_first_row_gzipped_or_not(tmp_path, zone):
    text = AZURE.replace("900,374", f"900{zone},374").replace("690,396", f"690{zone},396")
    file = tmp_path / "trace.csv.gz"
    file.write_bytes(gzip.compress(text.encode()))
    first, second = read_trace(file)
    assert first == TraceRow(0.0, "", 374, 44)
    assert second.t_s == pytest.approx(4.314579)
    assert (second.input_tokens, second.output_tokens) == (396, 109)


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("x,a,1,1", "t_s"),
        ("-1,a,1,1", "t_s"),
        ("nan,a,1,1", "t_s"),
        ("1,a,0,1", "input_tokens"),
        ("1,a,1.5,1", "input_tokens"),
        ("1,a,1", "output_tokens"),
        ("1,a,1,9999999999", "output_tokens"),
    ],
)
def test_a_bad_value_is_named_by_file_line_and_column(tmp_path, row, column):
    file = tmp_path / "trace.csv"
    file.write_text(f"{PLAIN}{row}\n")
    with pytest.raises(BadRequestError) as caught:
        read_trace(file)
    assert caught.value.field == f"trace.csv:4:{column}"
    assert caught.value.expected


@pytest.mark.parametrize(
    "content",
    [b"", b"a,b\n1,2\n", PLAIN.splitlines()[0].encode(), b"\xff\xfe\x00", b"\x1f\x8bnot gzip"],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path, content):
    file = tmp_path / "trace.csv"
    file.write_bytes(content)
    with pytest.raises(BadRequestError) as caught:
        read_trace(file)
    assert caught.value.field == "trace"


def test_a_truncated_gzip_is_refused(tmp_path):
    file = tmp_path / "trace.csv.gz"
    file.write_bytes(gzip.compress(AZURE.encode() * 100)[:-20])
    with pytest.raises(BadRequestError):
        read_trace(file)


def test_shaping_cuts_then_speeds_up_and_scales():
    rows = [TraceRow(0.0, "a", 100, 50), TraceRow(9.0, "a", 3, 1), TraceRow(10.0, "a", 1, 1)]
    shaped = shape_trace(rows, duration_s=10, speedup=2, scale_tokens=0.1)
    assert shaped == [TraceRow(0.0, "a", 10, 5), TraceRow(4.5, "a", 1, 1)]


def test_shaping_fits_rows_into_the_context():
    rows = [TraceRow(0.0, "a", 100, 50), TraceRow(0.0, "a", 100, 500), TraceRow(0.0, "a", 3, 4)]
    shaped = shape_trace(rows, context_tokens=128)
    assert [(row.input_tokens, row.output_tokens) for row in shaped] == [(78, 50), (1, 127), (3, 4)]


def test_models_are_assigned_by_weight_and_seed():
    rows = [TraceRow(float(t), "", 1, 1) for t in range(1000)]
    models = [("a", 3.0), ("b", 1.0)]
    first = assign_models(rows, models, np.random.default_rng(7))
    assert first == assign_models(rows, models, np.random.default_rng(7))
    share = sum(row.model == "a" for row in first) / len(first)
    assert share == pytest.approx(0.75, abs=0.05)


def test_models_are_renamed_where_asked():
    rows = [TraceRow(0.0, "0", 1, 1), TraceRow(0.0, "x", 1, 1)]
    assert [row.model for row in rename_models(rows, {"0": "chat"})] == ["chat", "x"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("t_s,input_tokens\rx,output_tokens\n0,1,2\n", 1, id="header"),
        pytest.param('t_s,input_tokens,output_tokens\n0,"1",2\r3\n', 2, id="row"),
    ],
)
def test_a_carriage_return_in_a_line_is_refused_with_its_place(tmp_path, text, line):
    path = tmp_path / "trace.csv"
    path.write_text(text, newline="")
    with pytest.raises(BadRequestError, match="no line of CSV") as caught:
        read_trace(path)
    assert caught.value.field == f"{path}:{line}"
