"""The CPU engine's arithmetic, one thread, on the shapes of SmolLM2-135M with random weights.

`tokens_per_s` is what the kernels or the model would do alone. Rivals are numpy (OpenBLAS, one
thread) and, where installed, torch (one thread), both on weights that were dequantised beforehand:
they read over five times the bytes. `fma_gflops` and `memory_gb_per_s` are what this machine was
measured to do at best, so that `gflops` can be read as a share.

Run: OPENBLAS_NUM_THREADS=1 .venv/bin/pytest bench/test_cpu_kernels.py --benchmark-only -s
On a busy machine add --benchmark-timer=time.thread_time: all of it is one thread's arithmetic.
"""

import os
import time

import numpy as np
import pytest
from cpu_samples import Kind, flat_batch, ints, random_weight

from festina import _core
from festina.engine.cpu.kernel_types import DecoderLayer, DecoderShape, DecoderWeights
from festina.engine.cpu.kernels import available_isas, make_decoder, make_kernels
from festina.engine.cpu.numpy_kernels import dequantise

WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 576, 1536, 30, 9, 3, 64, 49152
CONTEXT = 128
ISAS = [isa for isa in available_isas() if isa not in ("numpy", "avx2-wide")]
SHAPE = DecoderShape(
    heads=HEADS,
    kv_heads=KV_HEADS,
    head_dim=HEAD_DIM,
    norm_eps=1e-5,
    attention_scale=HEAD_DIM**-0.5,
    embedding_scale=1.0,
    activation="silu",
    rope_style="interleaved",
    frequencies=(1e5 ** -np.linspace(0, 1, 32, endpoint=False, dtype=np.float32),),
)


@pytest.fixture(scope="module")
def machine() -> dict[str, float]:
    """What it can do at best: the best of several short runs."""
    return {
        "fma_gflops": round(max(_core.CpuKernels().peak_gflops() for _ in range(5)), 1),
        "memory_gb_per_s": round(max(read_gb_per_s() for _ in range(5)), 1),
    }


def read_gb_per_s() -> float:
    data = np.ones(2**24, np.float32)
    start = time.perf_counter()
    data.max()
    return data.nbytes / (time.perf_counter() - start) / 1e9


@pytest.fixture(scope="module")
def weights() -> DecoderWeights:
    rng = np.random.default_rng(0)

    def matrix(rows: int, columns: int):
        return random_weight(rng, Kind.Q4_1, rows, columns)

    ones = np.ones(WIDTH, np.float32)
    layers = tuple(
        DecoderLayer(
            q=matrix(WIDTH, WIDTH),
            k=matrix(KV_HEADS * HEAD_DIM, WIDTH),
            v=matrix(KV_HEADS * HEAD_DIM, WIDTH),
            o=matrix(WIDTH, WIDTH),
            gate=matrix(HIDDEN, WIDTH),
            up=matrix(HIDDEN, WIDTH),
            down=matrix(WIDTH, HIDDEN),
            attn_norm=ones,
            ffn_norm=ones,
        )
        for _ in range(LAYERS)
    )
    embedding = random_weight(rng, Kind.Q8_0, VOCABULARY, WIDTH)
    return DecoderWeights(embedding, embedding, ones, layers)


def matrices(weights: DecoderWeights) -> list:
    """All weights that a token is multiplied with, in order."""
    layers = [(m.q, m.k, m.v, m.o, m.gate, m.up, m.down) for m in weights.layers]
    return [*(w for layer in layers for w in layer), weights.output]


@pytest.fixture(scope="module")
def dense(weights) -> list[np.ndarray]:
    return [dequantise(w) for w in matrices(weights)]


def report(benchmark, machine, tokens: int, multiplications: float) -> None:
    seconds = benchmark.stats.stats.min
    benchmark.extra_info.update(machine)
    benchmark.extra_info["tokens_per_s"] = round(tokens / seconds, 1)
    benchmark.extra_info["gflops"] = round(2 * multiplications / seconds / 1e9, 1)
    print(f"\n  {benchmark.group} {benchmark.name}: {benchmark.extra_info}")


def step_size(chunks: list[tuple[int, int]], weights: DecoderWeights) -> tuple[int, float]:
    """Tokens of a step, and multiplications with weights: the head only for the last of a chunk."""
    tokens = sum(new for _, new in chunks)
    inner = sum(w.rows * w.columns for w in matrices(weights)[:-1])
    return tokens, tokens * inner + len(chunks) * VOCABULARY * WIDTH


STEPS = {
    "prefill-128": [(0, 128)],
    "prefill-512": [(0, 512)],
    "decode-1": [(CONTEXT, 1)],
    "decode-4": [(CONTEXT, 1)] * 4,
    "decode-16": [(CONTEXT, 1)] * 16,
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("step", STEPS)
def test_a_whole_step(benchmark, machine, weights, step, isa):
    """The whole model through `Decoder.forward`, attention and head included."""
    benchmark.group = step
    chunks = STEPS[step]
    tokens, multiplications = step_size(chunks, weights)
    pool = (LAYERS, 160, KV_HEADS)
    keys = np.full((*pool, HEAD_DIM, 16), 0.1, np.float32)
    values = np.full((*pool, 16, HEAD_DIM), 0.1, np.float32)
    decoder = make_decoder(isa, SHAPE, weights, keys, values)
    batch = flat_batch(np.random.default_rng(1), chunks, 160)
    rows = ints(np.cumsum([new for _, new in chunks]) - 1)
    logits = np.empty((len(rows), VOCABULARY), np.float32)
    ids = np.arange(tokens, dtype=np.int32)
    benchmark.pedantic(
        decoder.forward, (ids, batch, rows, logits), rounds=4 if tokens > 16 else 8, warmup_rounds=1
    )
    report(benchmark, machine, tokens, multiplications)


PRODUCTS = {"matmul-128": 128, "matmul-1": 1, "matmul-4": 4, "matmul-16": 16}


def product_size(n: int, weights: DecoderWeights) -> float:
    return n * sum(w.rows * w.columns for w in matrices(weights)[:-1])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_all_products_of_the_layers(benchmark, machine, weights, product, isa):
    benchmark.group, n = product, PRODUCTS[product]
    kernels, all_weights = make_kernels(isa), matrices(weights)[:-1]
    inputs = {k: np.ones((n, k), np.float32) for k in (WIDTH, HIDDEN)}
    outputs = {m: np.empty((n, m), np.float32) for m in (WIDTH, HIDDEN, KV_HEADS * HEAD_DIM)}

    def run() -> None:
        for w in all_weights:
            kernels.matmul(inputs[w.columns], w, outputs[w.rows])

    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    report(benchmark, machine, n, product_size(n, weights))


@pytest.mark.parametrize("product", PRODUCTS)
def test_all_products_of_the_layers_in_numpy(benchmark, machine, weights, dense, product):
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        pytest.skip("a fair rival needs OPENBLAS_NUM_THREADS=1")
    benchmark.group, n = product, PRODUCTS[product]
    inputs = {k: np.ones((n, k), np.float32) for k in (WIDTH, HIDDEN)}
    benchmark.pedantic(
        lambda: [inputs[w.shape[1]] @ w.T for w in dense[:-1]], rounds=5, warmup_rounds=1
    )
    report(benchmark, machine, n, product_size(n, weights))


@pytest.mark.parametrize("product", PRODUCTS)
def test_all_products_of_the_layers_in_torch(benchmark, machine, weights, dense, product):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    benchmark.group, n = product, PRODUCTS[product]
    tensors = [torch.from_numpy(w) for w in dense[:-1]]
    inputs = {k: torch.ones(n, k) for k in (WIDTH, HIDDEN)}
    benchmark.pedantic(
        lambda: [torch.nn.functional.linear(inputs[w.shape[1]], w) for w in tensors],
        rounds=5,
        warmup_rounds=1,
    )
    report(benchmark, machine, n, product_size(n, weights))
