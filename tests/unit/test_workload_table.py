"""Columns of CSV files."""

from dataclasses import replace

import numpy as np
import pytest

from festina.errors import BadRequestError
from festina.workload.table import (
    COUNT,
    NAME,
    NUMBER,
    SECONDS,
    STAMP,
    TOKENS,
    cell_error,
    columns_of,
    indexes,
    read_columns,
)

CELLS = {"t_s": SECONDS, "model": NAME, "input_tokens": TOKENS}


def read(tmp_path, rows, cells=CELLS, end="\n"):
    path = tmp_path / "table.csv"
    path.write_bytes(end.join([",".join(cells), *rows, ""]).encode())
    return read_columns(path, cells)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["a", "été", "日本", "x" * 200, '"a,b"', "a#b"])
def test_names_of_all_kinds_are_read_as_they_are(tmp_path, name, end):
    columns = read(tmp_path, [f"0,{name},5", "1e2,b,6"], end=end)
    assert columns["model"].tolist() == [name.strip('"'), "b"]
    assert columns["t_s"].tolist() == [0.0, 100.0]
    assert columns["input_tokens"].tolist() == [5, 6]
    assert columns["input_tokens"].dtype == np.int64


def test_a_name_may_be_the_last_column(tmp_path):
    cells = {"t_s": SECONDS, "model": NAME}
    assert read(tmp_path, ["0,a", "1,b"], cells, "\r\n")["model"].tolist() == ["a", "b"]


def test_columns_come_in_any_order_among_others(tmp_path):
    text = "x,input_tokens,model,t_s\nfoo,7,m,1.5\n"
    columns = columns_of(tmp_path / "table.csv", text, CELLS)
    assert {name: column.tolist() for name, column in columns.items()} == {
        "t_s": [1.5],
        "model": ["m"],
        "input_tokens": [7],
    }


def test_blank_cells_read_as_nan_where_they_are_allowed(tmp_path):
    cells = {"a": replace(NUMBER, blank=True), "b": COUNT}
    columns = read(tmp_path, [",1", "2.5,0"], cells)
    np.testing.assert_array_equal(columns["a"], [np.nan, 2.5])
    with pytest.raises(BadRequestError) as caught:
        read(tmp_path, ["1,"], cells)
    assert caught.value.field == "table.csv:2:b"


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("1970-01-02 00:00:00", 86400.0),
        ("1970-01-01T00:00:01.5", 1.5),
        ("1970-01-01 01:00:00+01:00", 0.0),
        ("1970-01-01", 0.0),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(tmp_path, stamp, seconds):
    assert read(tmp_path, [stamp], {"TIMESTAMP": STAMP})["TIMESTAMP"].tolist() == [seconds]


@pytest.mark.parametrize("stamp", ["", "NaT", "soon", "1970-01-01 25:00:00", "1970-13-01 00:00:00"])
def test_other_times_are_refused(tmp_path, stamp):
    with pytest.raises(BadRequestError) as caught:
        read(tmp_path, [f"{stamp},1"], {"TIMESTAMP": STAMP, "b": COUNT})
    assert caught.value.field == "table.csv:2:TIMESTAMP"


def test_a_column_that_is_absent_is_named(tmp_path):
    with pytest.raises(BadRequestError) as caught:
        columns_of(tmp_path / "table.csv", "t_s,model\n0,a\n", CELLS)
    assert caught.value.field == "trace"
    assert "input_tokens" in caught.value.expected


def test_names_become_indexes_or_are_refused_by_line(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("model\na\n\nb\na\nc\n")
    names = read_columns(path, {"model": NAME})["model"]
    places = {"a": 0, "b": 1, "c": 2}
    assert indexes(path, "model", names, places.get, "a, b").tolist() == [0, 1, 0, 2]
    with pytest.raises(BadRequestError) as caught:
        indexes(path, "model", names, {"a": 0, "b": 1}.get, "a, b")
    assert caught.value.field == "table.csv:6:model"
    assert cell_error(path, 2, "x", "", "", header=0).field == "table.csv:4:x"
