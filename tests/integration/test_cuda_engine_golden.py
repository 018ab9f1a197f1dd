"""The GPU engine's tensor code on a CPU in float32, on published weights, against the goldens.

That is: its own paged cache and batches, PyTorch's or our kernels' attention, the same tokens as
Hugging Face's fp32 models.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from engine_driver import MODEL, Run, generate, runs_of

from festina.config import DeploymentConfig
from festina.engine import models
from festina.errors import WeightsError

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra `gpu`)")

from festina.engine.cuda.engine import CudaEngine  # noqa: E402
from festina.engine.cuda.graph_plan import GraphRules  # noqa: E402
from festina.engine.cuda.lanes import Lanes  # noqa: E402
from festina.engine.cuda.options import EngineOptions  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden"
TOKENS = 24


def weights(name):
    try:
        return models.pull(name) if name == "smollm2-135m" else models.resolve(name)
    except WeightsError as error:
        pytest.skip(f"no weights: {error}")


class Setup:
    """A model, its golden cases and an engine that holds it."""

    def __init__(self, name, kernels):
        self.path = weights(name)
        cases = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))["cases"]
        self.prompts = [case["ids"] for case in cases]
        self.outputs = [case["output"][:TOKENS] for case in cases]
        self.kernels = kernels
        self.engine = self.another(MODEL)

    def another(self, model):
        options = EngineOptions(torch.float32, self.kernels, GraphRules(buckets=(1, 2, 4)))
        engine = CudaEngine(torch.device("cpu"), Lanes.on_cpu(), options)
        engine.load(DeploymentConfig(name=model, weights=str(self.path), kv_tokens=2048))
        return engine


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Two pools of spinning threads on the same cores take tens of times longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(
    scope="module",
    params=[
        ("smollm2-135m", "torch"),
        ("smollm2-135m", "host"),
        ("gemma3-270m", "torch"),
        ("gemma3-270m", "host"),
    ],
    ids="-".join,
)
def setup(request):
    return Setup(*request.param)


def test_greedy_outputs_of_a_batch_equal_hugging_face(setup):
    assert generate(setup.engine, runs_of(setup.prompts, TOKENS), TOKENS) == setup.outputs


@pytest.mark.parametrize("chunk_tokens", [7, 64])
def test_chunks_do_not_change_outputs(setup, chunk_tokens):
    runs = runs_of(setup.prompts, 8)
    expected = [output[:8] for output in setup.outputs]
    assert generate(setup.engine, runs, 8, chunk_tokens) == expected


def test_preemption_by_recompute_does_not_change_outputs(setup):
    runs = runs_of(setup.prompts[:2], 16)
    generate(setup.engine, runs, 9)
    runs[0].cached, runs[0].blocks = 0, runs[0].blocks[::-1]
    expected = [output[:16] for output in setup.outputs[:2]]
    assert generate(setup.engine, runs, 16, chunk_tokens=16) == expected


def test_migration_to_other_blocks_of_another_engine_does_not_change_outputs(setup):
    (run,) = runs_of(setup.prompts[:1], 16)
    generate(setup.engine, [run], 9)
    data = setup.engine.export_blocks(MODEL, np.array(run.blocks, np.int32))
    other = setup.another("other")
    moved = Run(run.ids, [70 + block for block in run.blocks], cached=run.cached)
    moved.output = list(run.output)
    other.import_blocks("other", np.array(moved.blocks, np.int32), data)
    assert generate(other, [moved], 16, model="other") == [setup.outputs[0][:16]]
