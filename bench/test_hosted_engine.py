"""An engine in a process of its own beside the same engine within: what the process boundary costs.

    OPENBLAS_NUM_THREADS=1 pytest bench/test_hosted_engine.py

SmolLM2 135M on one thread, decodes at 128 tokens of context. `tokens_per_s` is the figure; the last
group shows the boundary alone, with a model of two tiny layers, whose steps take next to nothing.
"""

import numpy as np
import pytest
from engine_driver import MODEL, advance, generate, runs_of
from gguf_files import write_gguf

from festina.config import DeploymentConfig
from festina.engine import models
from festina.engine.cpu.engine import CpuEngine
from festina.engine.hosted import frames
from festina.engine.hosted.engine import Bounds, HostedEngine
from festina.engine.hosted.images import Images
from festina.errors import WeightsError

CONTEXT, ROUNDS = 128, 12
BATCHES = (1, 16)
TINY_ROUNDS, TINY_CONTEXT = 64, 16
BLOCKS = 64
KINDS = ("process", "inline")
PATIENT = Bounds(step_s=120.0)


@pytest.fixture(scope="module")
def weights():
    try:
        return models.pull("smollm2-135m")
    except WeightsError as error:
        pytest.skip(f"no weights: {error}")


def loaded(kind, weights, kv_tokens):
    hosted = kind == "process"
    engine = HostedEngine(frames.Open("cpu"), Images(0), PATIENT) if hosted else CpuEngine()
    engine.load(DeploymentConfig(name=MODEL, weights=str(weights), kv_tokens=kv_tokens))
    return engine


def end(engine):
    if isinstance(engine, HostedEngine):
        engine.close()


@pytest.fixture(scope="module", params=KINDS)
def engine(request, weights):
    engine = loaded(request.param, weights, 8192)
    yield engine
    end(engine)


@pytest.fixture(params=KINDS)
def tiny(request, tmp_path):
    engine = loaded(request.param, write_gguf(tmp_path / "tiny.gguf"), 2048)
    yield engine
    end(engine)


def ids_of(sequences, tokens, vocabulary):
    return np.random.default_rng(1).integers(10, vocabulary, (sequences, tokens))


@pytest.mark.benchmark(group="hosted decode")
@pytest.mark.parametrize("batch", BATCHES)
def test_decode(benchmark, engine, batch):
    runs = runs_of(ids_of(batch, CONTEXT, 40_000), ROUNDS + 2)
    generate(engine, runs, 1)
    benchmark.pedantic(lambda: advance(engine, runs, [1] * batch), rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["tokens_per_s"] = round(batch / benchmark.stats["median"], 1)


@pytest.mark.benchmark(group="hosted prefill")
def test_prefill(benchmark, engine):
    (ids,) = ids_of(1, CONTEXT, 40_000)
    benchmark.pedantic(lambda: generate(engine, runs_of([ids], 1), 1), rounds=4, warmup_rounds=1)
    benchmark.extra_info["tokens_per_s"] = round(CONTEXT / benchmark.stats["median"], 1)


@pytest.mark.benchmark(group="hosted KV export")
def test_export_of_blocks(benchmark, engine):
    blocks = np.arange(BLOCKS, dtype=np.int32)
    data = benchmark.pedantic(
        lambda: engine.export_blocks(MODEL, blocks), rounds=10, warmup_rounds=2
    )
    benchmark.extra_info["GB_per_s"] = round(data.nbytes / benchmark.stats["median"] / 1e9, 2)


@pytest.mark.benchmark(group="hosted KV import")
def test_import_of_blocks(benchmark, engine):
    blocks = np.arange(BLOCKS, dtype=np.int32)
    data = engine.export_blocks(MODEL, blocks)
    benchmark.pedantic(
        lambda: engine.import_blocks(MODEL, blocks, data), rounds=10, warmup_rounds=2
    )
    benchmark.extra_info["GB_per_s"] = round(data.nbytes / benchmark.stats["median"] / 1e9, 2)


@pytest.mark.benchmark(group="hosted boundary: steps of a tiny model")
@pytest.mark.parametrize("batch", BATCHES)
def test_step_of_a_tiny_model(benchmark, tiny, batch):
    runs = runs_of(ids_of(batch, TINY_CONTEXT, 250), TINY_ROUNDS + 9)
    generate(tiny, runs, 1)
    sizes = [1] * batch
    benchmark.pedantic(advance, (tiny, runs, sizes), rounds=TINY_ROUNDS, warmup_rounds=8)
