"""GGUF's blocks in tensor operations against the package `gguf`, bit for bit."""

import numpy as np
import pytest
from cpu_samples import KINDS, packed_rows
from gguf.quants import dequantize

from festina.engine.gguf_file import Tensor, TensorType

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra `gpu`)")

from festina.engine.cuda.dequantize import fill  # noqa: E402


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_numbers_are_those_of_the_package(kind, monkeypatch):
    rows, columns = 5, 512
    data = packed_rows(np.random.default_rng(3), kind, rows, columns).reshape(rows, -1)
    expected = np.asarray(dequantize(data, kind), np.float32).reshape(rows, columns)
    out = torch.full((rows, columns), 9.0)
    monkeypatch.setattr("festina.engine.cuda.dequantize.CHUNK_VALUES", 2 * columns)
    fill(out, Tensor("w", TensorType(int(kind)), rows, columns, data))
    assert np.array_equal(out.numpy(), expected)
