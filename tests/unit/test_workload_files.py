"""Trace files as workloads."""

import dataclasses
import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from festina.device.physics import gpu_named
from festina.errors import BadRequestError, UnsupportedModelError
from festina.simulator.workloads import build_workload

PLAIN = "t_s,model,input_tokens,output_tokens\n"


def write(folder, text, name="trace.csv"):
    path = folder / name
    path.write_text(text)
    return str(path)


def refusal(path, **arguments):
    with pytest.raises(BadRequestError) as caught:
        build_workload(path, **arguments)
    assert "\n" not in str(caught.value)
    return caught.value


def test_models_of_a_plain_trace_are_deployments(tmp_path):
    text = "0,llama-8b,10,1\n0.5,team/qwen-14b,20,2\n1.5,llama-8b,30,3\n"
    workload = build_workload(write(tmp_path, PLAIN + text))
    assert [(d.name, d.shape) for d in workload.deployments] == [
        ("llama-8b", "llama-8b"),
        ("team/qwen-14b", "qwen-14b"),
    ]
    assert workload.model.tolist() == [0, 1, 0]
    assert workload.arrival_ms.tolist() == [0, 500, 1500]
    assert workload.input_tokens.tolist() == [10, 20, 30]
    assert workload.output_tokens.tolist() == [1, 2, 3]
    assert workload.duration_s == 2
    assert not workload.synthetic


def test_models_without_a_shape_take_the_one_given(tmp_path):
    path = write(tmp_path, PLAIN + "0,chat,10,1\n1,llama-3b,10,1\n")
    workload = build_workload(path, shape="yi-9b")
    assert [d.shape for d in workload.deployments] == ["yi-9b", "llama-3b"]
    error = refusal(path)
    assert error.field == "trace.csv:2:model"
    assert "llama-8b" in error.expected


@pytest.mark.parametrize("gzipped", [False, True])
def test_azure_requests_go_to_replicas_in_turn_and_may_come_in_any_order(tmp_path, gzipped):
    text = (
        b"TIMESTAMP,ContextTokens,GeneratedTokens\n"
        b"2023-11-16 18:15:50.9951690,396,109\n"
        b"2023-11-16 18:15:46.6805900,5000,44\n"
    )
    path = tmp_path / "azure.csv"
    path.write_bytes(gzip.compress(text) if gzipped else text)
    workload = build_workload(str(path), gpus=4, context_tokens=4096)
    assert [d.shape for d in workload.deployments] == ["llama-8b"] * 4
    assert workload.model.tolist() == [0, 1]
    assert workload.arrival_ms == pytest.approx([0, 4314.579], abs=0.01)
    assert workload.input_tokens.tolist() == [4052, 396]
    assert workload.clipped == 1


def test_replicas_and_shape_of_a_trace_without_models(tmp_path):
    path = write(tmp_path, "t_s,input_tokens,output_tokens\n0,1,1\n1,1,1\n2,1,1\n")
    workload = build_workload(path, replicas=2, shape="llama-3b")
    assert [d.shape for d in workload.deployments] == ["llama-3b", "llama-3b"]
    assert workload.model.tolist() == [0, 1, 0]
    with pytest.raises(UnsupportedModelError):
        build_workload(path, shape="gpt-9")


def test_load_compresses_time(tmp_path):
    path = write(tmp_path, PLAIN + "0,llama-8b,10,1\n99,llama-8b,10,1\n")
    workload = build_workload(path, load=2.0)
    assert workload.arrival_ms.tolist() == [0, 49_500]
    assert workload.duration_s == 50


def test_mooncake_lines(tmp_path):
    rows = [
        {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]},
        {"timestamp": 3000, "input_length": 7322, "output_length": 490, "hash_ids": [0, 2]},
    ]
    text = "\n".join(map(json.dumps, rows)) + "\n"
    workload = build_workload(write(tmp_path, text, "trace.jsonl"), gpus=2)
    assert workload.arrival_ms.tolist() == [0, 3000]
    assert workload.input_tokens.tolist() == [6758, 7322]
    assert workload.output_tokens.tolist() == [500, 490]


GOOD_LINE = '{"timestamp": 5, "input_length": 1, "output_length": 1}\n'


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('{"timestamp": -1, "input_length": 1, "output_length": 1}', "3:timestamp"),
        ('{"timestamp": 9, "input_length": 0, "output_length": 1}', "3:input_length"),
        ('{"timestamp": 9, "input_length": 1, "output_length": "x"}', "3:output_length"),
        ('{"timestamp": 4, "input_length": 1, "output_length": 1}', "3:timestamp"),
        ('{"timestamp": 9, "input_length": 1}', "3"),
        ("{", "3"),
    ],
)
def test_a_bad_line_of_mooncake_is_named(tmp_path, line, place):
    path = write(tmp_path, f"{GOOD_LINE}\n{line}\n", "trace.jsonl")
    assert refusal(path).field == f"trace.jsonl:{place}"


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("-1,llama-8b,1,1", "t_s"),
        ("soon,llama-8b,1,1", "t_s"),
        ("0.5,llama-8b,1,1", "t_s"),  # unsorted
        ("2,llama-8b,0,1", "input_tokens"),
        ("2,llama-8b,1,0", "output_tokens"),
        ("2,llama-8b,1,1.5", "output_tokens"),
        ("2,llama-8b,1", "output_tokens"),
        ("2,gpt-9,1,1", "model"),
        ("2,,1,1", "model"),
    ],
)
def test_a_bad_cell_is_named_by_file_line_and_column(tmp_path, row, column):
    path = write(tmp_path, f"{PLAIN}1,llama-8b,1,1\n\n{row}\n3,llama-8b,1,1\n")
    assert refusal(path).field == f"trace.csv:4:{column}"


def test_a_model_that_fits_no_gpu_is_named(tmp_path):
    path = write(tmp_path, PLAIN + "0,llama-3b,1,1\n1,big/qwen-14b,1,1\n")
    small = dataclasses.replace(gpu_named("h100"), memory_bytes=20 * 2**30)
    error = refusal(path, gpu=small)
    assert error.field == "trace.csv:3:model"
    assert "GiB" in error.message
    nameless = write(tmp_path, "t_s,input_tokens,output_tokens\n0,1,1\n", "nameless.csv")
    assert refusal(nameless, gpu=small, shape="qwen-14b").field == "gpu"


@pytest.mark.parametrize("text", ["", PLAIN, "a,b\n1,2\n", "\n\n"])
def test_a_file_without_requests_is_refused(tmp_path, text):
    assert refusal(write(tmp_path, text)).field == "trace"


ROWS = st.lists(
    st.tuples(
        st.floats(0, 1e6, allow_nan=False),
        st.integers(1, 3000),
        st.integers(1, 1000),
        st.sampled_from(["llama-8b", "a/llama-3b", '"b, c"/yi-9b']),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(ROWS)
def test_what_is_written_is_read(tmp_path_factory, rows):
    """Quoted names force the slow path, others take the fast one: both read the same."""
    rows = sorted(rows)
    quoted = [name.replace('"', '""') for *_, name in rows]
    text = "".join(
        f'{t!r},"{name}",{i},{o}\n' if '"' in name else f"{t!r},{name},{i},{o}\n"
        for (t, i, o, _), name in zip(rows, quoted, strict=True)
    )
    path = write(tmp_path_factory.mktemp("rows"), PLAIN + text)
    workload = build_workload(path)
    np.testing.assert_array_equal(workload.arrival_ms, np.array([row[0] for row in rows]) * 1e3)
    names = [workload.deployments[model].name for model in workload.model]
    assert names == [row[3] for row in rows]
    assert workload.input_tokens.tolist() == [row[1] for row in rows]
    assert workload.output_tokens.tolist() == [row[2] for row in rows]
