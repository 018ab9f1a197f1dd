"""The CPU engine on published weights against Hugging Face's fp32 models.

Golden outputs are in tests/golden, with the script that made them. Weights are fetched once into
the user's cache folder; those of Gemma only by hand (`festina models pull`), as its licence asks
for consent.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from engine_driver import MODEL, Run, generate, runs_of

from festina.config import DeploymentConfig
from festina.engine import models
from festina.engine.cpu.engine import CpuEngine
from festina.engine.stream import OutputText
from festina.errors import WeightsError
from festina.messages import ChatTurn
from festina.types import Sampling

GOLDEN = Path(__file__).parents[1] / "golden"
SMOLLM, GEMMA = "smollm2-135m", "gemma3-270m"


def weights(name):
    if name == GEMMA:
        try:
            return models.resolve(name)
        except WeightsError:
            pytest.skip(f"{name} has not been pulled (its licence asks for consent)")
    try:
        return models.pull(name)
    except WeightsError as error:
        pytest.skip(f"no weights: {error}")


class Setup:
    """A model, its golden cases and an engine that holds it."""

    def __init__(self, name):
        self.path = weights(name)
        self.golden = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
        self.engine = CpuEngine()
        self.loaded = self.engine.load(self.deployment())

    def deployment(self, model=MODEL):
        return DeploymentConfig(name=model, weights=str(self.path), kv_tokens=2048)

    def cases(self):
        """Prompts and outputs."""
        cases = self.golden["cases"]
        return [case["ids"] for case in cases], [case["output"] for case in cases]


@pytest.fixture(scope="module", params=[SMOLLM, GEMMA])
def setup(request):
    return Setup(request.param)


@pytest.fixture(scope="module")
def smollm():
    return Setup(SMOLLM)


def shortened(outputs, tokens):
    return [output[:tokens] for output in outputs]


def test_golden_outputs_are_of_the_weights_that_ship(setup):
    assert setup.golden["sha256"] == models.known(setup.golden["model"]).sha256
    assert all(case["least_gap"] > 1e-3 for case in setup.golden["cases"])


def test_the_tokenizer_gives_the_ids_of_hugging_face(setup):
    for encoding in setup.golden["encodings"]:
        ids = setup.loaded.tokenizer.encode(encoding["text"])
        assert ids[len(ids) - len(encoding["ids"]) :] == encoding["ids"], encoding["text"]
        assert len(ids) - len(encoding["ids"]) in (0, 1)


def test_greedy_outputs_of_a_batch_equal_hugging_face(setup):
    prompts, outputs = setup.cases()
    assert generate(setup.engine, runs_of(prompts, 48), 48) == outputs


def test_greedy_outputs_one_by_one_equal_hugging_face(setup):
    for ids, output in zip(*setup.cases(), strict=True):
        assert generate(setup.engine, runs_of([ids], 48), 48) == [output]


@pytest.mark.parametrize("chunk_tokens", [1, 7, 16, 64])
def test_chunks_do_not_change_outputs(smollm, chunk_tokens):
    prompts, outputs = smollm.cases()
    runs = runs_of(prompts, 12)
    assert generate(smollm.engine, runs, 12, chunk_tokens) == shortened(outputs, 12)


def test_preemption_by_recompute_does_not_change_outputs(setup):
    prompts, outputs = setup.cases()
    runs = runs_of(prompts[:2], 24)
    generate(setup.engine, runs, 9)
    runs[0].cached, runs[0].blocks = 0, runs[0].blocks[::-1]
    assert generate(setup.engine, runs, 24, chunk_tokens=16) == shortened(outputs[:2], 24)


def test_migration_to_other_blocks_of_another_deployment_does_not_change_outputs(setup):
    prompts, outputs = setup.cases()
    (run,) = runs_of(prompts[:1], 24)
    generate(setup.engine, [run], 9)
    data = setup.engine.export_blocks(MODEL, np.array(run.blocks, np.int32))
    other = CpuEngine()
    other.load(setup.deployment("other"))
    moved = Run(run.ids, [70 + block for block in run.blocks], cached=run.cached)
    moved.output = list(run.output)
    other.import_blocks("other", np.array(moved.blocks, np.int32), data)
    assert generate(other, [moved], 24, model="other") == shortened(outputs[:1], 24)


def test_seeded_samples_are_the_same_alone_in_company_and_after_preemption(smollm):
    prompts, outputs = smollm.cases()
    sampling = Sampling(temperature=0.8, top_p=0.95, seed=7)
    (alone,) = generate(smollm.engine, runs_of(prompts[:1], 12, sampling), 12)
    runs = runs_of(prompts[:2], 12, sampling)
    generate(smollm.engine, runs, 4, chunk_tokens=5)
    runs[0].cached = 0
    assert generate(smollm.engine, runs, 12)[0] == alone
    assert alone != outputs[0][:12]


def test_a_chat_is_answered_to_the_end(smollm):
    tokenizer = smollm.loaded.tokenizer
    ids = tokenizer.encode_chat((ChatTurn("user", "What is the capital of France?"),))
    (run,) = runs_of([ids], 40)
    shown, text = OutputText(tokenizer), ""
    while not run.output or run.output[-1] not in tokenizer.end_ids:
        assert len(run.output) < 40
        generate(smollm.engine, [run], len(run.output) + 1)
        text += shown.push(run.output[-1])
    assert text + shown.flush() == "The capital of France is Paris."


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None,
    reason="the reference needs torch and transformers, which are not installed",
)
def test_the_reference_itself_chooses_the_golden_tokens(setup, monkeypatch):
    monkeypatch.syspath_prepend(str(GOLDEN))
    from reference import choices, load_reference

    model = load_reference(setup.path)
    for ids, output in zip(*setup.cases(), strict=True):
        assert choices(model, ids, output) == output
