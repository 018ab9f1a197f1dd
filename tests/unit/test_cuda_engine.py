"""The GPU engine's tensor code on the CPU in float32, against a plain decoder and its sibling."""

import threading

import numpy as np
import pytest
from engine_driver import MODEL, Run, generate, runs_of, step, step_logprobs
from plain_decoder import PlainDecoder
from tiny_models import ARCHITECTURES, gguf_file, published_folder

from festina.config import DeploymentConfig
from festina.engine.base import Batch
from festina.engine.cpu.engine import CpuEngine
from festina.errors import DeviceError, EngineError, UnsupportedModelError
from festina.types import OperatingPoint, Sampling, SmPartition

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra `gpu`)")

from festina.engine.cuda.engine import CudaEngine  # noqa: E402
from festina.engine.cuda.graph_plan import GraphRules  # noqa: E402
from festina.engine.cuda.lanes import Lanes  # noqa: E402
from festina.engine.cuda.options import EngineOptions  # noqa: E402

PROMPTS = [[5, 17, 99, 4, 200], list(range(10, 75)), [7]]
TOKENS = 20
HALVES = (SmPartition(0, 132), SmPartition(1, 64, 0), SmPartition(1, 68, 1))


def engine_of(weights, kernels="torch", name=MODEL, lanes=None, free_bytes=None, **settings):
    options = EngineOptions(torch.float32, kernels, GraphRules(buckets=(1, 2, 4)))
    engine = CudaEngine(
        torch.device("cpu"), lanes or Lanes.on_cpu(), options, free_bytes=free_bytes
    )
    settings = {"kv_tokens": 640, "context_tokens": 128} | settings
    engine.load(DeploymentConfig(name=name, weights=str(weights), **settings))
    return engine


@pytest.fixture(autouse=True)
def one_thread():
    """Two pools of spinning threads on the same cores take tens of times longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request, tmp_path_factory):
    """A file and what a plain decoder says to each prompt."""
    path = gguf_file(tmp_path_factory.mktemp("gguf"), request.param)
    decoder = PlainDecoder(path)
    return path, [decoder.greedy(ids, TOKENS) for ids in PROMPTS]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return gguf_file(tmp_path_factory.mktemp("gguf"), "llama")


@pytest.fixture(scope="module", params=["torch", "host"])
def kernels(request):
    return request.param


def test_every_architecture_says_what_a_plain_decoder_says(model, kernels):
    path, outputs = model
    engine = engine_of(path, kernels)
    assert generate(engine, runs_of(PROMPTS, TOKENS), TOKENS) == outputs


def test_the_cpu_engine_says_the_same_or_refuses(model):
    path, outputs = model
    engine = CpuEngine()
    deployment = DeploymentConfig(name=MODEL, weights=str(path), kv_tokens=640)
    if path.stem == "qwen2":
        with pytest.raises(UnsupportedModelError, match="biases"):
            engine.load(deployment)
        return
    engine.load(deployment)
    assert generate(engine, runs_of(PROMPTS, TOKENS), TOKENS) == outputs


@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_a_published_folder_says_the_same(model, tmp_path, kind):
    path, outputs = model
    folder = published_folder(tmp_path, path.stem, kind)
    engine = engine_of(folder)
    said = generate(engine, runs_of(PROMPTS, TOKENS), TOKENS)
    if kind == "F32":
        assert said == outputs
    else:
        decoder = PlainDecoder(folder)
        assert said == [decoder.greedy(ids, TOKENS) for ids in PROMPTS]


@pytest.mark.parametrize("chunk_tokens", [1, 7, 16, 64])
def test_chunks_do_not_change_outputs(model, kernels, chunk_tokens):
    path, outputs = model
    engine = engine_of(path, kernels)
    assert generate(engine, runs_of(PROMPTS, TOKENS), TOKENS, chunk_tokens) == outputs


def test_preemption_by_recompute_does_not_change_outputs(model):
    path, outputs = model
    engine = engine_of(path)
    runs = runs_of(PROMPTS, TOKENS)
    generate(engine, runs, 9)
    runs[1].cached, runs[1].blocks = 0, runs[1].blocks[::-1]
    assert generate(engine, runs, TOKENS, chunk_tokens=16) == outputs


def test_migration_to_other_blocks_of_another_engine_does_not_change_outputs(model):
    path, outputs = model
    engine = engine_of(path)
    (run,) = runs_of(PROMPTS[1:2], TOKENS)
    generate(engine, [run], 9)
    data = engine.export_blocks(MODEL, np.array(run.blocks, np.int32))
    other = engine_of(path, name="other")
    moved = Run(run.ids, [20 + block for block in run.blocks], cached=run.cached)
    moved.output = list(run.output)
    other.import_blocks("other", np.array(moved.blocks, np.int32), data)
    assert generate(other, [moved], TOKENS, model="other") == outputs[1:2]


def test_seeded_samples_are_those_of_the_cpu_engine(llama, kernels):
    sampling = Sampling(temperature=0.8, top_p=0.95, seed=7)
    cpu = CpuEngine()
    cpu.load(DeploymentConfig(name=MODEL, weights=str(llama), kv_tokens=640))
    expected = generate(cpu, runs_of(PROMPTS, TOKENS, sampling), TOKENS)
    engine = engine_of(llama, kernels)
    assert generate(engine, runs_of(PROMPTS, TOKENS, sampling), TOKENS) == expected


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_logprobs_are_those_of_the_cpu_engine(llama, kernels, temperature):
    sampling = Sampling(temperature, seed=9, logprobs=4)
    sibling = CpuEngine()
    sibling.load(DeploymentConfig(name=MODEL, weights=str(llama), kv_tokens=640))
    token_id, told = step_logprobs(engine_of(llama, kernels), PROMPTS[0], sampling)
    expected_id, expected = step_logprobs(sibling, PROMPTS[0], sampling)
    assert token_id == expected_id
    assert told.chosen == pytest.approx(expected.chosen, abs=1e-3)
    assert [token for token, _ in told.top] == [token for token, _ in expected.top]
    assert [one for _, one in told.top] == pytest.approx([one for _, one in expected.top], abs=1e-3)


def test_two_models_live_side_by_side_until_they_are_unloaded(llama):
    engine = engine_of(llama)
    engine.load(DeploymentConfig(name="two", weights=str(llama), kv_tokens=256))
    first = generate(engine, runs_of(PROMPTS[:1], 5), 5)
    assert generate(engine, runs_of(PROMPTS[:1], 5), 5, model="two") == first
    engine.unload(MODEL)
    with pytest.raises(EngineError, match="not resident"):
        generate(engine, runs_of(PROMPTS[:1], 5), 5)
    assert generate(engine, runs_of(PROMPTS[:1], 5), 5, model="two") == first
    with pytest.raises(KeyError):
        engine.unload(MODEL)


def test_sizes_are_those_of_what_is_on_the_device(llama):
    options = EngineOptions(torch.bfloat16, "torch", GraphRules(most=0))
    engine = CudaEngine(torch.device("cpu"), Lanes.on_cpu(), options)
    loaded = engine.load(
        DeploymentConfig(name=MODEL, weights=str(llama), kv_tokens=100, context_tokens=64)
    )
    cpu = CpuEngine().load(DeploymentConfig(name=MODEL, weights=str(llama), kv_tokens=100))
    assert loaded.kv_blocks == 7
    assert loaded.shape.parameters == cpu.shape.parameters
    assert loaded.shape.weight_bytes == 2 * cpu.shape.parameters
    assert loaded.shape.kv_bytes_per_token == cpu.shape.kv_bytes_per_token // 2
    assert loaded.shape.context_tokens == 64
    blocks = np.arange(7, dtype=np.int32)
    assert engine.export_blocks(MODEL, blocks).shape == (7, 16 * loaded.shape.kv_bytes_per_token)


def test_steps_on_two_halves_of_a_rung_may_overlap(llama):
    engine = engine_of(llama, lanes=Lanes.on_cpu(*HALVES))
    alone = generate(engine_of(llama), runs_of(PROMPTS, TOKENS), TOKENS)
    runs = runs_of(PROMPTS, TOKENS)
    barrier = threading.Barrier(2)

    def serve(mine, partition):
        for _ in range(TOKENS):
            barrier.wait(timeout=60)
            chunks = [run.chunk(100) for run in mine]
            batch = Batch(MODEL, tuple(chunks), OperatingPoint(0, partition.sms), partition)
            for run, chunk, token in zip(mine, chunks, engine.step(batch).token_ids, strict=True):
                run.cached += len(chunk.token_ids)
                run.output.append(token)

    threads = [
        threading.Thread(target=serve, args=args)
        for args in ((runs[:1], HALVES[1]), (runs[1:], HALVES[2]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.output for run in runs] == alone


def test_a_partition_that_the_device_has_not_is_refused(llama):
    engine = engine_of(llama)
    (run,) = runs_of(PROMPTS[:1], 5)
    with pytest.raises(EngineError) as caught:
        engine.step(
            Batch(MODEL, (run.chunk(9),), OperatingPoint(0, 16), SmPartition(rung=3, sms=16))
        )
    assert caught.value.field == "partition"


def test_a_chunk_beyond_the_context_is_refused_before_anything_is_written(llama):
    engine = engine_of(llama, context_tokens=48)
    (run,) = runs_of([list(range(10, 60))], 5)
    before = engine.export_blocks(MODEL, np.arange(40, dtype=np.int32))
    with pytest.raises(EngineError) as caught:
        step(engine, [run.chunk(50)])
    assert caught.value.field == "chunks[0]"
    assert (engine.export_blocks(MODEL, np.arange(40, dtype=np.int32)) == before).all()


def test_blocks_outside_the_pool_and_data_of_another_shape_are_refused(llama):
    engine = engine_of(llama)
    with pytest.raises(EngineError, match="outside the pool"):
        engine.export_blocks(MODEL, np.array([40], np.int32))
    with pytest.raises(EngineError) as caught:
        engine.import_blocks(MODEL, np.array([1], np.int32), np.zeros((1, 8), np.uint8))
    assert caught.value.field == "data"


def test_what_does_not_fit_is_refused_before_it_is_read(llama):
    with pytest.raises(DeviceError) as caught:
        engine_of(llama, free_bytes=lambda: 10_000)
    assert caught.value.field == "kv_tokens"
    assert engine_of(llama, free_bytes=lambda: 100_000_000) is not None


def test_random_weights_of_a_shape_run_and_are_not_zeros():
    engine = engine_of("random:smollm2-135m", kv_tokens=64, context_tokens=64)
    (run,) = runs_of([[1, 2, 3]], 4)
    (output,) = generate(engine, [run], 4)
    assert len(set(output)) > 1
    data = engine.export_blocks(MODEL, np.array(run.blocks[:1], np.int32)).view(np.float32)
    assert np.count_nonzero(data) > data.size // 8
    again = engine_of("random:smollm2-135m", kv_tokens=64, context_tokens=64)
    assert generate(again, runs_of([[1, 2, 3]], 4), 4) == [output]
