"""The CPU engine end to end on SmolLM2 135M, beside plain numpy and torch on fp32 weights.

Each on one thread: run as `OPENBLAS_NUM_THREADS=1 pytest bench/test_cpu_engine.py`, as BLAS reads
its thread count when numpy is imported; the bench refuses to compare otherwise. Torch takes part
where it is installed. `tokens_per_s` in the extra info is the figure; decode is at 128 tokens of
context.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engine_driver import MODEL, advance, generate, runs_of
from numpy_llama import NumpyLlama

from festina.config import DeploymentConfig
from festina.engine import models
from festina.engine.cpu import COMPUTE_ENV
from festina.engine.cpu.engine import CpuEngine
from festina.errors import WeightsError

CONTEXT, ROUNDS = 128, 6
PREFILL, BATCHES = (128, 512), (1, 4, 16)
HAS_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
GOLDEN = Path(__file__).parents[1] / "tests" / "golden"

one_thread = pytest.mark.skipif(
    os.environ.get("OPENBLAS_NUM_THREADS") != "1", reason="OPENBLAS_NUM_THREADS=1 is not set"
)
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch and transformers are not installed")


@pytest.fixture(scope="module")
def weights():
    try:
        return models.pull("smollm2-135m")
    except WeightsError as error:
        pytest.skip(f"no weights: {error}")


@pytest.fixture(scope="module")
def engine(weights):
    engine = CpuEngine()
    engine.load(DeploymentConfig(name=MODEL, weights=str(weights), kv_tokens=8192))
    return engine


@pytest.fixture(scope="module")
def torch_model(weights):
    sys.path.insert(0, str(GOLDEN))
    from reference import load_reference

    return load_reference(weights)


def ids_of(sequences, tokens):
    return np.random.default_rng(1).integers(10, 40_000, (sequences, tokens))


def measure(benchmark, function, tokens, rounds=ROUNDS):
    benchmark.pedantic(function, rounds=rounds, warmup_rounds=1)
    benchmark.extra_info["tokens_per_s"] = round(tokens / benchmark.stats["median"], 1)


@pytest.mark.benchmark(group="prefill")
@pytest.mark.parametrize("tokens", PREFILL)
def test_prefill_of_the_engine(benchmark, engine, tokens):
    (ids,) = ids_of(1, tokens)
    measure(benchmark, lambda: generate(engine, runs_of([ids], 1), 1), tokens, 3)


@one_thread
@pytest.mark.benchmark(group="prefill")
@pytest.mark.parametrize("tokens", PREFILL)
def test_prefill_of_numpy(benchmark, weights, tokens):
    rival = NumpyLlama(weights, 1, tokens)

    def prefill():
        rival.length = 0
        rival.step(ids_of(1, tokens))

    measure(benchmark, prefill, tokens, 3)


@needs_torch
@pytest.mark.benchmark(group="prefill")
@pytest.mark.parametrize("tokens", PREFILL)
def test_prefill_of_torch(benchmark, torch_model, tokens):
    import torch

    ids = torch.tensor(ids_of(1, tokens))
    with torch.no_grad():
        measure(benchmark, lambda: torch_model(ids, logits_to_keep=1), tokens, 3)


@pytest.mark.benchmark(group="decode")
@pytest.mark.parametrize("batch", BATCHES)
def test_decode_of_the_engine(benchmark, engine, batch):
    runs = runs_of(ids_of(batch, CONTEXT), ROUNDS + 2)
    generate(engine, runs, 1)
    measure(benchmark, lambda: advance(engine, runs, [1] * batch), batch)


@one_thread
@pytest.mark.benchmark(group="decode")
@pytest.mark.parametrize("batch", BATCHES)
def test_decode_of_numpy(benchmark, weights, batch):
    rival = NumpyLlama(weights, batch, CONTEXT + ROUNDS + 2)
    logits = rival.step(ids_of(batch, CONTEXT))
    ids = logits.argmax(-1)[:, None]
    measure(benchmark, lambda: rival.step(ids).argmax(-1), batch)


@needs_torch
@pytest.mark.benchmark(group="decode")
@pytest.mark.parametrize("batch", BATCHES)
def test_decode_of_torch(benchmark, torch_model, batch):
    import torch

    with torch.no_grad():
        start = torch_model(torch.tensor(ids_of(batch, CONTEXT)), logits_to_keep=1)
        ids = start.logits[:, -1].argmax(-1)[:, None]
        cache = start.past_key_values
        measure(benchmark, lambda: torch_model(ids, cache=cache).logits.argmax(-1), batch)


@pytest.mark.benchmark(group="cold start")
def test_cold_start_to_the_first_token(benchmark, weights):
    """Load from a warm page cache, encode, and answer a short prompt, in a running process."""

    def start():
        engine = CpuEngine()
        deployment = DeploymentConfig(name=MODEL, weights=str(weights), kv_tokens=8192)
        tokenizer = engine.load(deployment).tokenizer
        generate(engine, runs_of([tokenizer.encode("Hello")], 1), 1)

    benchmark.pedantic(start, rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="cold start")
def test_cold_start_of_a_process(benchmark, weights):
    """The same with starting Python and importing the engine."""
    script = (
        "from festina.engine.cpu.engine import CpuEngine; from festina.config import *\n"
        f"CpuEngine().load(DeploymentConfig(name='m', weights={str(weights)!r}))"
    )
    command = [sys.executable, "-c", script]
    environment = os.environ | COMPUTE_ENV
    benchmark.pedantic(lambda: subprocess.run(command, check=True, env=environment), rounds=3)
