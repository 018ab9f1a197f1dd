"""Every native kernel equals its numpy form, on every instruction set of this machine."""

import numpy as np
import pytest
from cpu_samples import BLOCKS_256, DENSE, KINDS, Kind, flat_batch, floats, ints, random_weight
from hypothesis import given, settings
from hypothesis import strategies as st

from festina.engine.cpu.kernels import available_isas, make_kernels
from festina.engine.cpu.numpy_kernels import NumpyKernels, dequantise

ISAS = [isa for isa in available_isas() if isa != "numpy"]
ORACLE = NumpyKernels()
KERNELS = {isa: make_kernels(isa) for isa in ISAS}

pytestmark = pytest.mark.parametrize("isa", ISAS)


def columns_of(kind: Kind, units: int) -> int:
    """An allowed number of columns; odd ones where the quantisation allows them."""
    if kind in DENSE:
        return units * 13
    return units * (256 if kind in BLOCKS_256 else 32)


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float = 2e-6) -> None:
    """Errors are judged against the largest value: sums of many terms may cancel."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_embedded_rows_are_the_dequantised_rows(isa, kind):
    rng = np.random.default_rng(1)
    weight = random_weight(rng, kind, 11, columns_of(kind, 3))
    rows = ints([10, 0, 3, 3])
    out = np.empty((4, weight.columns), np.float32)
    KERNELS[isa].embed(weight, rows, 1.0, out)
    np.testing.assert_allclose(out, dequantise(weight)[rows], rtol=3e-7, atol=1e-6)
    KERNELS[isa].embed(weight, rows, 2.0, out)
    np.testing.assert_allclose(out, 2 * dequantise(weight)[rows], rtol=3e-7, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
@given(n=st.integers(1, 21), rows=st.integers(1, 60), units=st.integers(1, 5), seed=st.integers(0))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_matmul_equals_the_product_with_dequantised_weights(isa, kind, n, rows, units, seed):
    rng = np.random.default_rng(seed)
    weight = random_weight(rng, kind, rows, columns_of(kind, units))
    x, out, expected = floats(rng, n, weight.columns), *np.full((2, n, rows), 0.5, np.float32)
    for accumulate in (False, True):
        KERNELS[isa].matmul(x, weight, out, accumulate)
        ORACLE.matmul(x, weight, expected, accumulate)
        assert_close(out, expected)


@pytest.mark.parametrize("kind", [Kind.Q4_1, Kind.Q8_0, Kind.Q6_K, Kind.F16])
def test_a_product_is_bit_for_bit_the_same_in_any_company(isa, kind):
    rng = np.random.default_rng(2)
    weight = random_weight(rng, kind, 53, columns_of(kind, 4))
    x = floats(rng, 67, weight.columns)
    together = np.empty((67, 53), np.float32)
    KERNELS[isa].matmul(x, weight, together)
    for n in (*range(1, 20), 33):
        alone = np.empty((n, 53), np.float32)
        KERNELS[isa].matmul(x[67 - n :], weight, alone)
        np.testing.assert_array_equal(alone, together[67 - n :])


@given(n=st.integers(0, 5), width=st.integers(1, 70), seed=st.integers(0))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_elementwise_kernels_equal_numpy(isa, n, width, seed):
    rng = np.random.default_rng(seed)
    x, y, gain = 5 * floats(rng, n, width), floats(rng, n, width), floats(rng, width)
    for name in ("silu", "gelu_tanh"):
        found, expected = x.copy(), x.copy()
        KERNELS[isa].gate(found, y, name)
        ORACLE.gate(expected, y, name)
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
    found, expected = np.empty_like(x), np.empty_like(x)
    KERNELS[isa].rms_norm(x, gain, 1e-5, found)
    ORACLE.rms_norm(x, gain, 1e-5, expected)
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    KERNELS[isa].rms_norm(x, gain, 1e-5, x)
    np.testing.assert_array_equal(found, x)
    KERNELS[isa].add(x, y)
    np.testing.assert_array_equal(x, found + y)
    chosen = np.empty(n, np.int32)
    KERNELS[isa].argmax(x, chosen)
    np.testing.assert_array_equal(chosen, x.argmax(axis=1))


def test_gates_do_not_overflow_at_the_ends(isa):
    x = np.array([-1e4, -100, -88, 0, 88, 100, 1e4], np.float32)
    for name in ("silu", "gelu_tanh"):
        found = x.copy()
        KERNELS[isa].gate(found, np.ones_like(x), name)
        np.testing.assert_allclose(found, np.maximum(x, 0), atol=1e-5)


def test_argmax_takes_the_first_of_equals(isa):
    x = np.zeros((3, 37), np.float32)
    x[0, [5, 36]] = 1
    x[1] = -np.inf
    x[2, 36] = 1
    chosen = np.empty(3, np.int32)
    KERNELS[isa].argmax(x, chosen)
    assert chosen.tolist() == [5, 0, 36]


@pytest.mark.parametrize("style", ["interleaved", "half_split"])
@pytest.mark.parametrize(("head_dim", "pairs"), [(64, 32), (256, 128), (10, 5), (10, 3)])
def test_rope_equals_numpy_and_keeps_lengths(isa, style, head_dim, pairs):
    rng = np.random.default_rng(3)
    x, angles = floats(rng, 7, 3, head_dim), floats(rng, 7, pairs)
    found, expected = x.copy(), x.copy()
    cosines, sines = np.cos(angles), np.sin(angles)
    KERNELS[isa].rope(found, cosines, sines, style)
    ORACLE.rope(expected, cosines, sines, style)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose((found**2).sum(-1), (x**2).sum(-1), rtol=1e-5)


CHUNKS = st.lists(st.tuples(st.integers(0, 70), st.integers(1, 20)), min_size=1, max_size=4)
HEADS = st.sampled_from([(1, 1), (2, 1), (9, 3), (4, 1), (7, 1), (5, 1), (8, 8)])


@given(CHUNKS, HEADS, st.sampled_from([64, 20, 7]), st.sampled_from([0, 1, 16, 23]), st.integers(0))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_paged_attention_equals_plain_softmax(isa, chunks, heads, head_dim, window, seed):
    rng = np.random.default_rng(seed)
    batch = flat_batch(rng, chunks, 30)
    tokens, (query_heads, kv_heads) = len(batch.positions), heads
    k, v = floats(rng, 2, tokens, kv_heads, head_dim)
    keys, values = floats(rng, 30, kv_heads, head_dim, 16), floats(rng, 30, kv_heads, 16, head_dim)
    caches = (keys, values), (keys.copy(), values.copy())
    for kernels, cache in zip((KERNELS[isa], ORACLE), caches, strict=True):
        kernels.store_kv(k, v, batch, *cache)
    np.testing.assert_array_equal(caches[0][0], caches[1][0])
    np.testing.assert_array_equal(caches[0][1], caches[1][1])
    q = 3 * floats(rng, tokens, query_heads, head_dim)
    found, expected = np.empty_like(q), np.empty_like(q)
    KERNELS[isa].attention(q, batch, keys, values, 0.3, window, found)
    ORACLE.attention(q, batch, keys, values, 0.3, window, expected)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
