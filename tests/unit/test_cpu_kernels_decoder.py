"""The native decoder equals the numpy one, and equals itself however a step is cut."""

import dataclasses
import gc

import numpy as np
import pytest
from cpu_samples import Kind, flat_batch, floats, ints, random_weight

from festina.engine.cpu.kernel_types import DecoderLayer, DecoderShape, DecoderWeights, FlatBatch
from festina.engine.cpu.kernels import available_isas, make_decoder
from festina.errors import EngineError

ISAS = [isa for isa in available_isas() if isa != "numpy"]
WIDTH, HIDDEN, VOCABULARY, HEAD_DIM, LAYERS, BLOCKS = 64, 96, 50, 32, 3, 20

LLAMA = DecoderShape(
    heads=6,
    kv_heads=2,
    head_dim=HEAD_DIM,
    norm_eps=1e-5,
    attention_scale=HEAD_DIM**-0.5,
    embedding_scale=1.0,
    activation="silu",
    rope_style="interleaved",
    frequencies=(10000.0 ** -np.linspace(0, 1, 16, dtype=np.float32),),
)
GEMMA = DecoderShape(
    heads=4,
    kv_heads=1,
    head_dim=HEAD_DIM,
    norm_eps=1e-6,
    attention_scale=0.2,
    embedding_scale=8.0,
    activation="gelu_tanh",
    rope_style="half_split",
    frequencies=tuple(t ** -np.linspace(0, 1, 16, dtype=np.float32) for t in (1e6, 1e4)),
)


def make_layer(rng: np.random.Generator, shape: DecoderShape, index: int) -> DecoderLayer:
    q_width, kv_width = shape.heads * HEAD_DIM, shape.kv_heads * HEAD_DIM
    gemma = shape is GEMMA
    extra = {
        "q_norm": floats(rng, HEAD_DIM),
        "k_norm": floats(rng, HEAD_DIM),
        "attn_post_norm": floats(rng, WIDTH),
        "ffn_post_norm": floats(rng, WIDTH),
        "window": 0 if index == 1 else 9,
        "rope": 0 if index == 1 else 1,
    }
    return DecoderLayer(
        q=random_weight(rng, Kind.Q4_1, q_width, WIDTH),
        k=random_weight(rng, Kind.Q8_0, kv_width, WIDTH),
        v=random_weight(rng, Kind.Q5_0, kv_width, WIDTH),
        o=random_weight(rng, Kind.Q4_1, WIDTH, q_width),
        gate=random_weight(rng, Kind.Q4_0, HIDDEN, WIDTH),
        up=random_weight(rng, Kind.F16, HIDDEN, WIDTH),
        down=random_weight(rng, Kind.Q4_1, WIDTH, HIDDEN),
        attn_norm=floats(rng, WIDTH) / 8,
        ffn_norm=floats(rng, WIDTH) / 8,
        **(extra if gemma else {}),
    )


def make_weights(shape: DecoderShape) -> DecoderWeights:
    rng = np.random.default_rng(4)
    embedding = random_weight(rng, Kind.Q8_0, VOCABULARY, WIDTH)
    layers = tuple(make_layer(rng, shape, index) for index in range(LAYERS))
    return DecoderWeights(embedding, embedding, floats(rng, WIDTH), layers)


def make_pool(shape: DecoderShape) -> tuple[np.ndarray, np.ndarray]:
    lead = (LAYERS, BLOCKS, shape.kv_heads)
    return np.zeros((*lead, HEAD_DIM, 16), np.float32), np.zeros((*lead, 16, HEAD_DIM), np.float32)


def run(decoder, token_ids, batch, rows) -> np.ndarray:
    logits = np.full((len(rows), VOCABULARY), np.nan, np.float32)
    decoder.forward(ints(token_ids), batch, ints(rows), logits)
    return logits


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [LLAMA, GEMMA], ids=["llama", "gemma"])
def test_the_native_decoder_equals_the_numpy_one(isa, shape):
    rng = np.random.default_rng(5)
    weights, (native_keys, native_values) = make_weights(shape), make_pool(shape)
    numpy_keys, numpy_values = make_pool(shape)
    native = make_decoder(isa, shape, weights, native_keys, native_values)
    plain = make_decoder("numpy", shape, weights, numpy_keys, numpy_values)
    prefill = flat_batch(np.random.default_rng(6), [(0, 21), (0, 3), (0, 40)], BLOCKS)
    ids = rng.integers(0, VOCABULARY, 64)
    for rows in ([63, 20, 23], [], [5, 5]):
        found, expected = run(native, ids, prefill, rows), run(plain, ids, prefill, rows)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(native_keys, numpy_keys, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(native_values, numpy_values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [LLAMA, GEMMA], ids=["llama", "gemma"])
def test_logits_are_bit_for_bit_the_same_however_a_prompt_is_cut(isa, shape):
    rng = np.random.default_rng(7)
    weights, ids = make_weights(shape), rng.integers(0, VOCABULARY, 50)
    blocks, offsets = ints([7, 2, 11, 5]), ints([0, 4])

    def logits_after(cuts: list[int]) -> np.ndarray:
        decoder = make_decoder(isa, shape, weights, *make_pool(shape))
        for start, end in zip([0, *cuts], [*cuts, 50], strict=True):
            batch = FlatBatch(
                ints(range(start, end)), np.zeros(end - start, np.int32), blocks, offsets
            )
            last = run(decoder, ids[start:end], batch, [end - start - 1])
        return last

    whole = logits_after([])
    for cuts in ([49], [1], [16, 32, 48], [13, 14, 40], list(range(1, 50))):
        np.testing.assert_array_equal(logits_after(cuts), whole)


@pytest.mark.parametrize("isa", ISAS)
def test_logits_are_bit_for_bit_the_same_in_company(isa):
    rng = np.random.default_rng(8)
    weights = make_weights(LLAMA)
    ids = rng.integers(0, VOCABULARY, 64)
    batch = flat_batch(rng, [(0, 21), (0, 3), (0, 40)], BLOCKS)
    together = run(make_decoder(isa, LLAMA, weights, *make_pool(LLAMA)), ids, batch, [20, 23, 63])
    for index, (first, last) in enumerate([(0, 21), (21, 24), (24, 64)]):
        n = last - first
        alone = flat_batch(rng, [(0, n)], BLOCKS)
        decoder = make_decoder(isa, LLAMA, weights, *make_pool(LLAMA))
        np.testing.assert_array_equal(
            run(decoder, ids[first:last], alone, [n - 1])[0], together[index]
        )


def test_the_decoder_keeps_what_it_reads_alive():
    weights, pool = make_weights(LLAMA), make_pool(LLAMA)
    ids, batch = [1, 2, 3], flat_batch(np.random.default_rng(9), [(0, 3)], BLOCKS)
    expected = run(make_decoder("", LLAMA, weights, *make_pool(LLAMA)), ids, batch, [2])
    decoder = make_decoder("", LLAMA, weights, *pool)
    del weights, pool
    gc.collect()
    churn = [np.full(4096, 255, np.uint8) for _ in range(500)]
    np.testing.assert_array_equal(run(decoder, ids, batch, [2]), expected)
    assert len(churn) == 500


def test_a_step_with_wrong_indices_is_refused_before_the_cache_changes():
    keys, values = make_pool(LLAMA)
    decoder = make_decoder("", LLAMA, make_weights(LLAMA), keys, values)
    batch = flat_batch(np.random.default_rng(10), [(0, 3)], BLOCKS)
    for ids, rows, field in (
        ([1, VOCABULARY, 2], [0], "token_ids"),
        ([1, -1, 2], [0], "token_ids"),
        ([1, 2, 3], [3], "logit_rows"),
        ([1, 2], [0], "token_ids"),
    ):
        with pytest.raises(EngineError) as caught:
            run(decoder, ids, batch, rows)
        assert caught.value.field == field
    outside = FlatBatch(ints([0]), ints([0]), ints([BLOCKS]), ints([0, 1]))
    with pytest.raises(EngineError, match="blocks"):
        run(decoder, [1], outside, [0])
    assert not keys.any()
    assert not values.any()


def test_weights_that_do_not_fit_each_other_are_named():
    weights, (keys, values) = make_weights(LLAMA), make_pool(LLAMA)
    short = dataclasses.replace(weights, layers=weights.layers[:2])
    thin = dataclasses.replace(weights, output_norm=weights.output_norm[:3])
    for wrong, wrong_keys, wrong_values, field in (
        (weights, keys[:2].copy(), values[:2].copy(), "keys"),
        (weights, keys, keys, "values"),
        (short, keys, values, "layers"),
        (thin, keys, values, "output_norm"),
    ):
        with pytest.raises(EngineError) as caught:
            make_decoder("", LLAMA, wrong, wrong_keys, wrong_values)
        assert caught.value.field == field
