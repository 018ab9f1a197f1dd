"""The engine on a real GPU: tokens of the CPU engine, graphs per lane, overlapping steps."""

import importlib.util
import os
import threading

import numpy as np
import pytest
from engine_driver import MODEL, Run, generate, runs_of
from tiny_models import ARCHITECTURES, gguf_file

from festina import _core
from festina.config import DeploymentConfig
from festina.device.nvidia.opening import open_ladder
from festina.engine import models
from festina.engine.base import Batch, Chunk
from festina.engine.cpu.engine import CpuEngine
from festina.errors import DeviceError, WeightsError
from festina.types import OperatingPoint, Sampling

if importlib.util.find_spec("torch") is None:
    pytest.skip("PyTorch is not installed (the extra `gpu`)", allow_module_level=True)

PROMPTS = [[5, 17, 99, 4, 200], list(range(10, 75)), [7]]
TOKENS = 20
POOLS = os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING") != "1"
"""Whether PyTorch has the memory pools that it needs to capture graphs."""


@pytest.fixture(scope="module")
def ladder():
    if not hasattr(_core, "paged_attention_device"):
        pytest.skip("built without CUDA")
    try:
        return open_ladder(0)
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def engine_of(ladder):
    """Makes engines: in float32, unless told otherwise, so that outputs are those of the CPU."""
    import torch

    from festina.engine.cuda.engine import CudaEngine
    from festina.engine.cuda.graph_plan import GraphRules
    from festina.engine.cuda.lanes import Lanes, copy_stream
    from festina.engine.cuda.options import EngineOptions
    from festina.engine.kv_copy_cuda import CudaKvCopy
    from festina.engine.kv_crossover import KERNEL_ONLY, Crossover

    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device("cuda", 0)
    crossover = Crossover("", 0, 16, KERNEL_ONLY, KERNEL_ONLY, (), ())

    def make(weights, *, dtype=torch.float32, kernels="device", graphs=True, **settings):
        _, copies = copy_stream(ladder)
        copier = CudaKvCopy(_core.CudaDriver(), 0, copies, blocks_max=16, crossover=crossover)
        most = 1000 if graphs and POOLS else 0
        rules = GraphRules(most, ahead=False, batch_max=4, buckets=(1, 2, 4))
        engine = CudaEngine(
            device,
            Lanes.on_gpu(ladder, 0),
            EngineOptions(dtype, kernels, rules),
            copier=copier,
        )
        engine.whole = ladder.partitions[0]
        settings = {"kv_tokens": 2048, "context_tokens": 512} | settings
        engine.load(DeploymentConfig(name=MODEL, weights=str(weights), **settings))
        return engine

    return make


def generated(engine, runs, tokens, chunk_tokens=10**6):
    """What a GPU's engine says, on the whole device."""
    return generate(engine, runs, tokens, chunk_tokens, partition=engine.whole)


def cpu_outputs(path, prompts, tokens, sampling=None):
    engine = CpuEngine()
    engine.load(DeploymentConfig(name=MODEL, weights=str(path), kv_tokens=2048))
    runs = runs_of(prompts, tokens, sampling or Sampling())
    return generate(engine, runs, tokens)


def on(partition, model, runs):
    chunks = [run.chunk(100) for run in runs]
    return chunks, Batch(model, tuple(chunks), OperatingPoint(0, partition.sms), partition)


def advance_on(engine, partition, runs, model=MODEL):
    chunks, batch = on(partition, model, runs)
    for run, chunk, token in zip(runs, chunks, engine.step(batch).token_ids, strict=True):
        run.cached += len(chunk.token_ids)
        run.output.append(token)


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a != "qwen2"])
@pytest.mark.parametrize("graphs", [False, True])
def test_every_architecture_says_what_the_cpu_engine_says(
    engine_of, tmp_path, architecture, graphs
):
    path = gguf_file(tmp_path, architecture)
    engine = engine_of(path, graphs=graphs, context_tokens=128)
    assert generated(engine, runs_of(PROMPTS, TOKENS), TOKENS) == cpu_outputs(path, PROMPTS, TOKENS)


def test_the_kernel_and_plain_attention_agree_on_qwen2(engine_of, tmp_path):
    path = gguf_file(tmp_path, "qwen2")
    plain = engine_of(path, kernels="torch", graphs=False, context_tokens=128)
    expected = generated(plain, runs_of(PROMPTS, TOKENS), TOKENS)
    engine = engine_of(path, context_tokens=128)
    assert generated(engine, runs_of(PROMPTS, TOKENS), TOKENS) == expected


@pytest.fixture(scope="module")
def smollm():
    try:
        return models.pull("smollm2-135m")
    except WeightsError as error:
        pytest.skip(f"no weights: {error}")


@pytest.mark.parametrize("chunk_tokens", [10**6, 7])
def test_published_weights_in_float32_say_what_the_cpu_engine_says(engine_of, smollm, chunk_tokens):
    prompts = [list(range(100, 140)), [504, 3575, 282, 4649, 314], list(range(7000, 7300))]
    engine = engine_of(smollm)
    expected = cpu_outputs(smollm, prompts, 24)
    assert generated(engine, runs_of(prompts, 24), 24, chunk_tokens) == expected


def test_published_weights_in_bf16_choose_what_is_nearly_best(engine_of, smollm):
    """bf16 has 8 bits: where two tokens are closer than that, either may be chosen."""
    import torch

    prompt = [504, 3575, 282, 4649, 314]
    (expected,) = cpu_outputs(smollm, [prompt], 24)
    engine = engine_of(smollm, dtype=torch.bfloat16)
    agreed = 0
    for length in range(24):
        run = Run(prompt + expected[:length], [0, 1, 2, 3])
        (token,) = generated(engine, [run], 1)[0]
        agreed += token == expected[length]
    assert agreed >= 22


def test_every_lane_says_the_same_by_graphs_of_its_own(engine_of, ladder, tmp_path):
    path = gguf_file(tmp_path, "llama")
    engine = engine_of(path, context_tokens=128)
    expected = cpu_outputs(path, PROMPTS, TOKENS)
    for partition in ladder.partitions:
        runs = runs_of(PROMPTS, TOKENS)
        for _ in range(TOKENS):
            advance_on(engine, partition, runs)
        assert [run.output for run in runs] == expected


def test_a_sequence_may_change_lanes_between_steps(engine_of, ladder, tmp_path):
    path = gguf_file(tmp_path, "gemma3")
    engine = engine_of(path, context_tokens=128)
    runs = runs_of(PROMPTS, TOKENS)
    for number in range(TOKENS):
        advance_on(engine, ladder.partitions[number % len(ladder.partitions)], runs)
    assert [run.output for run in runs] == cpu_outputs(path, PROMPTS, TOKENS)


def test_steps_on_two_halves_of_a_rung_overlap(engine_of, ladder, tmp_path):
    path = gguf_file(tmp_path, "llama")
    engine = engine_of(path, context_tokens=128)
    engine.load(DeploymentConfig(name="two", weights=str(path), kv_tokens=2048))
    halves = [one for one in ladder.partitions if one.rung == 1]
    runs = {MODEL: runs_of(PROMPTS, TOKENS), "two": runs_of(PROMPTS, TOKENS)}
    errors = []

    def serve(model, partition):
        try:
            for _ in range(TOKENS):
                advance_on(engine, partition, runs[model], model)
        except Exception as error:  # noqa: BLE001 - a thread's failure must reach the test
            errors.append(error)

    threads = [threading.Thread(target=serve, args=args) for args in zip(runs, halves, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = cpu_outputs(path, PROMPTS, TOKENS)
    assert errors == []
    assert [[run.output for run in mine] for mine in runs.values()] == [expected, expected]


def test_blocks_survive_the_way_out_and_in(engine_of, tmp_path):
    path = gguf_file(tmp_path, "qwen3")
    engine, other = engine_of(path, context_tokens=128), engine_of(path, context_tokens=128)
    (run,) = runs_of(PROMPTS[1:2], TOKENS)
    generated(engine, [run], 9)
    data = engine.export_blocks(MODEL, np.array(run.blocks, np.int32))
    moved = Run(run.ids, [40 + block for block in run.blocks], cached=run.cached)
    moved.output = list(run.output)
    other.import_blocks(MODEL, np.array(moved.blocks, np.int32), data)
    assert (other.export_blocks(MODEL, np.array(moved.blocks, np.int32)) == data).all()
    assert generated(other, [moved], TOKENS) == cpu_outputs(path, PROMPTS[1:2], TOKENS)


def test_blocks_written_right_after_a_load_stay(engine_of, tmp_path):
    """Making a pool takes the device a while; nothing else may reach it before."""
    path = gguf_file(tmp_path, "llama")
    small = engine_of(path, context_tokens=128)
    data = np.full_like(small.export_blocks(MODEL, np.array([0], np.int32)), 7)
    engine = engine_of(path, context_tokens=128, kv_tokens=4_000_000)
    last = np.array([4_000_000 // 16 - 1], np.int32)
    engine.import_blocks(MODEL, last, data)
    assert (engine.export_blocks(MODEL, last) == data).all()


def test_seeded_samples_are_those_of_the_cpu_engine(engine_of, tmp_path):
    path = gguf_file(tmp_path, "llama")
    sampling = Sampling(temperature=0.8, top_p=0.95, seed=7)
    engine = engine_of(path, context_tokens=128)
    runs = runs_of(PROMPTS, TOKENS, sampling)
    assert generated(engine, runs, TOKENS) == cpu_outputs(path, PROMPTS, TOKENS, sampling)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("splits", [1, 5])
def test_the_kernel_gives_the_bits_of_its_body_on_the_host(ladder, bf16, splits):
    """Sums are fused multiply-adds in one order, so nothing may differ."""
    import torch

    dtype = torch.bfloat16 if bf16 else torch.float32
    generator = torch.Generator().manual_seed(3)
    pool = torch.randn(80, 2, 4, 128 * 16, generator=generator).to(dtype)
    q = torch.randn(3, 12, 128, generator=generator).to(dtype)
    tables = torch.randperm(80, generator=generator)[:78].reshape(3, 26).int()
    lengths = torch.tensor([416, 0, 33], dtype=torch.int32)
    shape = _core.PagedAttentionShape(
        sequences=3,
        kv_heads=4,
        group=3,
        head_dim=128,
        table_width=26,
        window=0,
        splits=splits,
        scale=128**-0.5,
        block_stride=pool.stride(0),
        q_stride=q.stride(0),
    )

    def run(device):
        q_, pool_, tables_, lengths_ = (one.to(device) for one in (q, pool, tables, lengths))
        out = torch.full_like(q_, 9.0)
        scratch = torch.full((max(1, shape.scratch),), float("nan"), device=device)
        arrays = _core.PagedAttentionArrays(
            q=q_.data_ptr(),
            keys=pool_[:, 0].data_ptr(),
            values=pool_[:, 1].data_ptr(),
            tables=tables_.data_ptr(),
            lengths=lengths_.data_ptr(),
            scratch=scratch.data_ptr(),
            out=out.data_ptr(),
        )
        if device == "cpu":
            _core.paged_attention_host(shape, arrays, bf16)
        else:
            stream = torch.cuda.current_stream()
            _core.paged_attention_device(shape, arrays, bf16, stream.cuda_stream)
            stream.synchronize()
        return out.cpu()

    assert torch.equal(run("cuda"), run("cpu"))


def test_what_does_not_fit_is_refused(ladder):
    from festina.engine.cuda.opening import engine_on_gpu

    engine = engine_on_gpu(0, ladder)
    with pytest.raises(DeviceError) as caught:
        engine.load(DeploymentConfig(name=MODEL, weights="random:llama-8b", kv_tokens=100_000_000))
    assert caught.value.field == "kv_tokens"


def test_random_weights_of_a_shape_decode(ladder):
    from festina.engine.cuda.opening import engine_on_gpu

    engine = engine_on_gpu(0, ladder)
    loaded = engine.load(
        DeploymentConfig(name=MODEL, weights="random:smollm2-135m", kv_tokens=1024)
    )
    chunk = Chunk(np.arange(64, dtype=np.int32), 0, np.arange(5, dtype=np.int32), Sampling(), 0)
    result = engine.step(Batch(MODEL, (chunk,), OperatingPoint(0, 1), ladder.partitions[0]))
    assert 0 <= result.token_ids[0] < loaded.shape.vocabulary
