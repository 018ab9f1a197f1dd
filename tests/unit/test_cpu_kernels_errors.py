"""Wrong arguments to the CPU kernels give typed errors that name the field."""

import numpy as np
import pytest
from cpu_samples import Kind, flat_batch, floats, ints, random_weight

from festina.engine.cpu.kernel_types import FlatBatch, Weight
from festina.engine.cpu.kernels import make_decoder, make_kernels
from festina.errors import ConfigError, EngineError, UnsupportedModelError

RNG = np.random.default_rng(0)


@pytest.fixture(params=["native", "numpy"])
def kernels(request):
    return make_kernels("numpy" if request.param == "numpy" else "")


def test_an_unknown_instruction_set_names_those_there_are():
    with pytest.raises(ConfigError, match=r"engine\.isa.*baseline.*numpy"):
        make_kernels("mmx")
    with pytest.raises(ConfigError):
        make_decoder("mmx", None, None, None, None)


def test_an_unknown_quantisation_is_unsupported():
    with pytest.raises(UnsupportedModelError, match=r"weight\.type: GGUF type 10 .*Q4_K"):
        Weight(np.zeros(84, np.uint8), int(Kind.Q2_K), 1, 256)


@pytest.mark.parametrize(
    ("data", "kind", "rows", "columns", "field"),
    [
        (np.zeros(40, np.uint8), Kind.Q4_1, 2, 33, "weight.columns"),
        (np.zeros(40, np.uint8), Kind.Q4_1, 3, 32, "weight.data"),
        (np.zeros(39, np.uint8), Kind.Q4_1, 2, 32, "weight.data"),
        (np.zeros(0, np.uint8), Kind.Q4_1, 0, 32, "weight.shape"),
        (np.zeros(10, np.float32), Kind.F32, 1, 10, "weight.data"),
        (np.zeros(80, np.uint8)[::2], Kind.Q4_1, 2, 32, "weight.data"),
        (np.zeros(40, np.uint8), Kind.Q4_1, 2**63, 2**62, "weight.data"),
    ],
)
def test_a_weight_whose_size_and_shape_differ_is_refused(data, kind, rows, columns, field):
    with pytest.raises(EngineError) as caught:
        Weight(data, int(kind), rows, columns)
    assert caught.value.field == field


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("x", "out", "field"),
    [
        (np.zeros((3, 64), np.float64), np.zeros((3, 8), np.float32), "x"),
        (np.zeros((3, 63), np.float32), np.zeros((3, 8), np.float32), "x"),
        (np.zeros(64, np.float32), np.zeros((1, 8), np.float32), "x"),
        (np.zeros((64, 3), np.float32).T, np.zeros((3, 8), np.float32), "x"),
        (np.zeros((3, 64), np.float32), np.zeros((2, 8), np.float32), "out"),
        (np.zeros((3, 64), np.float32), np.zeros((3, 16), np.float32)[:, ::2], "out"),
        (np.zeros((3, 64), np.float32), frozen(np.zeros((3, 8), np.float32)), "out"),
    ],
)
def test_matmul_refuses_arrays_that_do_not_fit(kernels, x, out, field):
    weight = random_weight(RNG, Kind.Q4_1, 8, 64)
    with pytest.raises(EngineError) as caught:
        kernels.matmul(x, weight, out)
    assert caught.value.field == field


@pytest.mark.parametrize("row", [-1, 8, 2**31 - 1])
def test_embedding_rows_outside_the_weight_are_refused(kernels, row):
    weight = random_weight(RNG, Kind.Q8_0, 8, 32)
    with pytest.raises(EngineError, match="rows"):
        kernels.embed(weight, ints([0, row]), 1.0, np.zeros((2, 32), np.float32))


@pytest.mark.parametrize(
    ("arrays", "field"),
    [
        (([0], [0], [4], [0, 1]), "blocks"),
        (([0], [0], [-1], [0, 1]), "blocks"),
        (([16], [0], [1], [0, 1]), "positions"),
        (([-1], [0], [1], [0, 1]), "positions"),
        (([0], [1], [1], [0, 1]), "sequences"),
        (([0], [-1], [1], [0, 1]), "sequences"),
        (([0], [0], [1], [0, 2]), "block_offsets"),
        (([0], [0], [1], [1, 1]), "block_offsets"),
        (([0], [0], [1, 2], [0, 3, 2]), "block_offsets"),
        (([0], [0], [1, 2], [0, -3, 2]), "block_offsets"),
        (([0], [0], [], [0]), "sequences"),
    ],
)
def test_a_batch_outside_the_pool_is_refused_before_anything_is_written(kernels, arrays, field):
    batch = FlatBatch(*map(ints, arrays))
    keys, values = np.zeros((4, 1, 8, 16), np.float32), np.zeros((4, 1, 16, 8), np.float32)
    ones = np.ones((1, 1, 8), np.float32)
    with pytest.raises(EngineError) as caught:
        kernels.store_kv(ones, ones, batch, keys, values)
    assert caught.value.field == field
    with pytest.raises(EngineError):
        kernels.attention(ones, batch, keys, values, 1.0, 0, ones.copy())
    assert not keys.any()
    assert not values.any()


@pytest.mark.parametrize(
    ("arrays", "field"),
    [
        (([0, 1], [0], [0], [0, 1]), "sequences"),
        (([0], [0], [0], []), "block_offsets"),
        (([[0]], [0], [0], [0, 1]), "positions"),
    ],
)
def test_a_batch_of_arrays_that_do_not_fit_is_refused(arrays, field):
    with pytest.raises(EngineError) as caught:
        FlatBatch(*map(ints, arrays))
    assert caught.value.field == field


def test_attention_refuses_a_cache_of_another_shape(kernels):
    batch = flat_batch(RNG, [(0, 1)], 4)
    q = floats(RNG, 1, 3, 8)
    keys, values = np.zeros((4, 2, 8, 16), np.float32), np.zeros((4, 2, 16, 8), np.float32)
    for wrong_keys, wrong_values in (
        (keys, values),  # 3 heads on 2 KV heads
        (values, keys),
        (keys[:, :1].copy(), values),
    ):
        with pytest.raises(EngineError):
            kernels.attention(q, batch, wrong_keys, wrong_values, 1.0, 0, q.copy())


@pytest.mark.parametrize("name", ["relu", ""])
def test_unknown_activations_and_rotations_are_unsupported(kernels, name):
    x = floats(RNG, 1, 1, 4)
    with pytest.raises(UnsupportedModelError, match="gelu_tanh"):
        kernels.gate(x, x.copy(), name)
    with pytest.raises(UnsupportedModelError, match="half_split"):
        kernels.rope(x, floats(RNG, 1, 2), floats(RNG, 1, 2), name)


def test_rope_refuses_more_pairs_than_a_head_has(kernels):
    with pytest.raises(EngineError, match="cosines"):
        kernels.rope(floats(RNG, 1, 1, 4), floats(RNG, 1, 3), floats(RNG, 1, 3), "half_split")


def test_other_kernels_refuse_arrays_that_do_not_fit(kernels):
    x = floats(RNG, 2, 4)
    for call, field in (
        (lambda: kernels.rms_norm(x, floats(RNG, 3), 1e-5, x.copy()), "gain"),
        (lambda: kernels.rms_norm(x, floats(RNG, 4), 1e-5, frozen(x.copy())), "out"),
        (lambda: kernels.gate(x, floats(RNG, 2, 3), "silu"), "up"),
        (lambda: kernels.add(x, x.astype(np.float64)), "y"),
        (lambda: kernels.argmax(x, np.zeros(2, np.int64)), "out"),
        (lambda: kernels.argmax(np.zeros((2, 0), np.float32), ints([0, 0])), "x"),
        (lambda: kernels.embed(random_weight(RNG, Kind.F32, 2, 4), ints([[0]]), 1.0, x), "rows"),
        (lambda: kernels.rope(x, floats(RNG, 2, 2), floats(RNG, 2, 2), "half_split"), "x"),
    ):
        with pytest.raises(EngineError) as caught:
            call()
        assert caught.value.field == field


def test_both_forms_expect_the_same_in_the_same_words():
    told = []
    for isa in ("", "numpy"):
        with pytest.raises(EngineError) as caught:
            make_kernels(isa).add(floats(RNG, 2, 4), floats(RNG, 2, 3))
        told.append((str(caught.value), caught.value.field, caught.value.expected))
    assert told[0] == told[1]
