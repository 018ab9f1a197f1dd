import numpy as np
import pytest
from engine_driver import MODEL, Run, advance, generate, runs_of, step, step_logprobs
from gguf_files import (
    FF_WIDTH,
    KV_HEADS,
    LAYERS,
    VOCABULARY,
    WIDTH,
    tiny_metadata,
    tiny_tensors,
    write_gguf,
)
from plain_decoder import PlainDecoder
from tiny_models import gguf_file

from festina.config import DeploymentConfig
from festina.engine.base import BLOCK_TOKENS, Chunk
from festina.engine.cpu.engine import CpuEngine
from festina.errors import DeviceError, EngineError, UnsupportedModelError, WeightsError
from festina.types import Sampling

PROMPTS = [[5, 17, 99, 4, 200], list(range(10, 45)), [7]]
TOKENS = 20


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def deployment(weights, name=MODEL, kv_tokens=512, **settings):
    return DeploymentConfig(name=name, weights=str(weights), kv_tokens=kv_tokens, **settings)


@pytest.fixture
def engine(weights):
    engine = CpuEngine()
    engine.load(deployment(weights))
    return engine


@pytest.fixture
def expected(engine):
    """Each prompt alone, in one chunk."""
    return [generate(engine, runs_of([ids], TOKENS), TOKENS)[0] for ids in PROMPTS]


def test_the_sizes_of_a_model_are_told(weights):
    loaded = CpuEngine().load(deployment(weights, kv_tokens=100, context_tokens=64))
    kv_width = WIDTH // 2
    layer = WIDTH * (2 * WIDTH + 2 * kv_width + 3 * FF_WIDTH)
    assert loaded.model == MODEL
    assert loaded.kv_blocks == 7
    assert loaded.shape.parameters == LAYERS * layer + VOCABULARY * WIDTH
    assert loaded.shape.weight_bytes == loaded.shape.parameters * 34 // 32
    assert loaded.shape.kv_bytes_per_token == 2 * LAYERS * KV_HEADS * (WIDTH // 4) * 4
    assert loaded.shape.context_tokens == 64
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("hello")) == "hello"


def test_the_models_own_context_is_an_upper_bound(weights):
    assert CpuEngine().load(deployment(weights)).shape.context_tokens == 128


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_logprobs_are_those_of_a_plain_decoder(tmp_path, temperature):
    path = gguf_file(tmp_path, "llama")
    engine = CpuEngine()
    engine.load(deployment(path))
    sampling = Sampling(temperature, seed=9, logprobs=4)
    token_id, told = step_logprobs(engine, PROMPTS[0], sampling)
    logits = PlainDecoder(path).logits(PROMPTS[0])[-1]
    logprobs = logits - np.log(np.exp(logits).sum())
    assert told.chosen == pytest.approx(logprobs[token_id], abs=1e-3)
    assert [token for token, _ in told.top] == list(np.argsort(-logits)[:4])
    assert [one for _, one in told.top] == pytest.approx(np.sort(logprobs)[:-5:-1], abs=1e-3)


@pytest.mark.parametrize("chunk_tokens", [1, 7, 16, 64])
def test_outputs_do_not_depend_on_chunks_or_company(engine, expected, chunk_tokens):
    assert generate(engine, runs_of(PROMPTS, TOKENS), TOKENS, chunk_tokens) == expected


def test_native_and_numpy_kernels_give_the_same_tokens(weights, expected):
    engine = CpuEngine(isa="numpy")
    engine.load(deployment(weights))
    assert generate(engine, runs_of(PROMPTS, TOKENS), TOKENS) == expected


def test_a_preempted_request_goes_on_as_if_nothing_had_happened(engine, expected):
    victim, other = runs_of(PROMPTS[:2], TOKENS)
    generate(engine, [victim, other], 8)
    victim.cached, victim.blocks = 0, victim.blocks[::-1]
    other_blocks = set(other.blocks)
    assert not other_blocks & set(victim.blocks)
    assert generate(engine, [victim, other], TOKENS, chunk_tokens=4) == expected[:2]


def test_sampled_outputs_survive_preemption_and_company(engine):
    sampling = Sampling(temperature=1.2, top_p=0.9, seed=11)
    (alone,) = generate(engine, runs_of(PROMPTS[:1], TOKENS, sampling), TOKENS)
    victim, other = runs_of(PROMPTS[:2], TOKENS, sampling)
    generate(engine, [victim, other], 5, chunk_tokens=3)
    victim.cached = 0
    assert generate(engine, [victim, other], TOKENS)[0] == alone
    greedy = generate(engine, runs_of(PROMPTS[:1], TOKENS), TOKENS)[0]
    assert alone != greedy


def test_exported_blocks_continue_in_another_engine_under_other_ids(weights, engine, expected):
    run, company = runs_of(PROMPTS[1::-1], TOKENS)
    generate(engine, [run, company], 6)
    data = engine.export_blocks(MODEL, np.array(run.blocks, np.int32))
    other = CpuEngine()
    other.load(deployment(weights))
    moved = Run(run.ids, [20 + block for block in run.blocks], cached=run.cached)
    moved.output = list(run.output)
    other.import_blocks(MODEL, np.array(moved.blocks, np.int32), data)
    assert generate(other, [moved], TOKENS) == expected[1:2]


def test_deployments_of_the_same_file_have_their_own_caches(weights, engine, expected):
    engine.load(deployment(weights, "twin"))
    run, twin = runs_of(PROMPTS[:1], TOKENS)[0], runs_of(PROMPTS[1:2], TOKENS)[0]
    while len(run.output) < TOKENS:
        advance(engine, [run], [64])
        advance(engine, [twin], [64], "twin")
    assert [run.output, twin.output] == expected[:2]


def test_only_chunks_that_end_a_prompt_get_a_token(engine):
    first, second = runs_of(PROMPTS[1::-1], TOKENS)
    result = advance(engine, [first, second], [16, 16])
    assert result.token_ids[0] is None
    assert result.token_ids[1] is not None


def test_a_step_counts_its_work(weights):
    ticks = iter([10.0, 10.25])
    engine = CpuEngine(clock=lambda: next(ticks))
    shape = engine.load(deployment(weights)).shape
    run = Run(list(range(20)), [0, 1], cached=0)
    result = step(engine, [run.chunk(20)])
    head = VOCABULARY * WIDTH
    pairs = LAYERS * 20 * 21 // 2
    assert result.latency_ms == 250.0
    assert result.flops == 2 * ((shape.parameters - head) * 20 + head) + 4 * WIDTH * pairs
    assert result.bytes_moved == shape.weight_bytes + 2 * 20 * shape.kv_bytes_per_token


def chunk(**changes):
    values = {
        "token_ids": np.array([1, 2], np.int32),
        "start": 0,
        "blocks": np.array([0], np.int32),
        "sampling": None,
        "output_index": 0,
    }
    return Chunk(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"token_ids": np.array([], np.int32)}, "chunks[1]"),
        ({"start": -1}, "chunks[1]"),
        ({"start": BLOCK_TOKENS - 1}, "chunks[1].blocks"),
        ({"blocks": np.array([], np.int32)}, "chunks[1].blocks"),
        ({"blocks": np.array([32], np.int32)}, "chunks[1].blocks"),
        ({"blocks": np.array([-1], np.int32)}, "chunks[1].blocks"),
        ({"token_ids": np.array([VOCABULARY], np.int32)}, "chunks[1].token_ids"),
        ({"token_ids": np.array([-1], np.int32)}, "chunks[1].token_ids"),
    ],
)
def test_a_wrong_chunk_is_named_before_anything_is_written(engine, changes, field):
    before = engine.export_blocks(MODEL, np.arange(32, dtype=np.int32))
    with pytest.raises(EngineError) as caught:
        step(engine, [chunk(blocks=np.array([3], np.int32)), chunk(**changes)])
    assert caught.value.field == field
    assert np.array_equal(engine.export_blocks(MODEL, np.arange(32, dtype=np.int32)), before)


def test_a_step_needs_chunks_and_a_resident_model(engine):
    with pytest.raises(EngineError, match="no chunks"):
        step(engine, [])
    with pytest.raises(EngineError, match="not resident"):
        step(engine, [chunk()], "stranger")


def test_imports_of_another_shape_and_blocks_outside_the_pool_are_refused(engine):
    blocks = np.array([1, 2], np.int32)
    data = engine.export_blocks(MODEL, blocks)
    for wrong in (data[:1], data[:, :-4], data.astype(np.int8)):
        with pytest.raises(EngineError) as caught:
            engine.import_blocks(MODEL, blocks, wrong)
        assert caught.value.field == "data"
    with pytest.raises(EngineError, match="outside the pool"):
        engine.export_blocks(MODEL, np.array([32], np.int32))


def test_an_unloaded_model_is_gone_and_can_come_back(weights, engine, expected):
    engine.unload(MODEL)
    with pytest.raises(EngineError, match="not resident"):
        step(engine, [chunk()])
    with pytest.raises(KeyError):
        engine.unload(MODEL)
    engine.load(deployment(weights))
    assert generate(engine, runs_of(PROMPTS, TOKENS), TOKENS) == expected


def test_weights_that_cannot_be_loaded_leave_the_others_alone(tmp_path, engine, expected):
    bad = write_gguf(tmp_path / "bad.gguf", architecture="mamba")
    with pytest.raises(UnsupportedModelError):
        engine.load(deployment(bad, "bad"))
    with pytest.raises(WeightsError):
        engine.load(deployment(tmp_path / "nowhere.gguf", "bad"))
    assert generate(engine, runs_of(PROMPTS, TOKENS), TOKENS) == expected


@pytest.mark.parametrize("rows", [VOCABULARY - 32, VOCABULARY + 32])
def test_a_vocabulary_of_another_size_than_the_embedding_is_refused(tmp_path, rows):
    tensors = tiny_tensors()
    tensors["token_embd.weight"] = np.zeros((rows, WIDTH), np.float32)
    path = write_gguf(tmp_path / "tiny.gguf", tiny_metadata(), tensors)
    with pytest.raises(WeightsError, match=r"tokenizer\.ggml\.tokens"):
        CpuEngine().load(DeploymentConfig(name="m", weights=str(path), kv_tokens=64))


def test_a_pool_that_does_not_fit_into_memory_is_a_device_error(weights):
    with pytest.raises(DeviceError) as caught:
        CpuEngine().load(deployment(weights, kv_tokens=2**45))
    assert caught.value.field == "kv_tokens"
