"""Decode graphs: which are captured when, that serving captures none, and what they take."""

import dataclasses

import pytest
from engine_driver import MODEL, generate, runs_of
from tiny_models import gguf_file

from festina.config import AgentConfig, DeploymentConfig
from festina.engine.base import Batch
from festina.errors import DeviceError
from festina.types import OperatingPoint, SmPartition

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra `gpu`)")

from festina.engine.cuda.building import open_source  # noqa: E402
from festina.engine.cuda.engine import CudaEngine  # noqa: E402
from festina.engine.cuda.graph_plan import BUCKETS, GraphNeed, GraphRules  # noqa: E402
from festina.engine.cuda.graphs import recompute  # noqa: E402
from festina.engine.cuda.lanes import Lanes  # noqa: E402
from festina.engine.cuda.options import EngineOptions  # noqa: E402

WHOLE, *HALVES = SmPartition(0, 1), SmPartition(1, 16, 0), SmPartition(1, 116, 1)
PROMPTS = [[5, 17, 99, 4, 200], list(range(10, 75)), [7]]
TOKENS = 6


class Captures:
    """Stands for CUDA: notes what is captured on which lane, and fails where it is told to."""

    def __init__(self):
        self.made = []

    def __call__(self, buffers, lane):
        self.made.append((lane.partition, buffers.sequences))
        return recompute(buffers, lane)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return gguf_file(tmp_path_factory.mktemp("gguf"), "llama")


def engine_of(captures, free_bytes=None, **rules):
    rules = GraphRules(**({"buckets": (1, 2, 4), "batch_max": 4} | rules))
    options = EngineOptions(torch.float32, "torch", rules)
    lanes = Lanes.on_cpu(WHOLE, *HALVES)
    device = torch.device("cpu")
    return CudaEngine(device, lanes, options, capture=captures, free_bytes=free_bytes)


def deployment(weights, name=MODEL):
    return DeploymentConfig(name=name, weights=str(weights), kv_tokens=640, context_tokens=128)


def advance_on(engine, partition, runs):
    chunks = tuple(run.chunk(100) for run in runs)
    batch = Batch(MODEL, chunks, OperatingPoint(0, partition.sms), partition)
    for run, chunk, token in zip(runs, chunks, engine.step(batch).token_ids, strict=True):
        run.cached += len(chunk.token_ids)
        run.output.append(token)


class TestRules:
    @pytest.mark.parametrize(
        ("batch_max", "expected"),
        [(1, (1,)), (2, (1, 2)), (3, (1, 2, 4)), (4, (1, 2, 4)), (9, (1, 2, 4))],
    )
    def test_no_bucket_is_larger_than_a_step_can_be(self, batch_max, expected):
        assert GraphRules(buckets=(1, 2, 4), batch_max=batch_max).useful == expected

    @pytest.mark.parametrize(
        ("most", "expected"),
        [
            (0, [(), (), ()]),
            (2, [(1, 2), (), ()]),
            (4, [(1, 2, 4), (1,), ()]),
            (100, [(1, 2, 4), (1, 2, 4), (1, 2, 4)]),
        ],
    )
    def test_the_whole_device_and_small_batches_come_first(self, most, expected):
        assert GraphRules(most, batch_max=4, buckets=(1, 2, 4)).ahead_of_use(3) == expected

    def test_what_is_captured_on_use_is_not_captured_before(self):
        assert GraphRules(ahead=False).ahead_of_use(2) == [(), ()]

    def test_the_default_is_every_batch_size_on_the_whole_device(self):
        most = AgentConfig().graphs_max
        assert GraphRules(most).ahead_of_use(3) == GraphRules().ahead_of_use(3) == [BUCKETS, (), ()]


class TestCaptures:
    def test_they_happen_when_a_model_is_loaded_and_never_while_it_serves(self, llama):
        captures = Captures()
        engine = engine_of(captures, most=4)
        engine.load(deployment(llama))
        # The largest first, so that the others find room in its pool.
        expected = [(WHOLE, 4), (WHOLE, 2), (WHOLE, 1), (HALVES[0], 1)]
        assert captures.made == expected
        generate(engine, runs_of(PROMPTS, TOKENS), TOKENS)
        for partition in HALVES:
            runs = runs_of(PROMPTS, TOKENS)
            for _ in range(3):
                advance_on(engine, partition, runs)
        assert captures.made == expected

    def test_outputs_are_the_same_with_graphs_and_without_on_every_lane(self, llama):
        plain = engine_of(Captures(), most=0)
        plain.load(deployment(llama))
        outputs = generate(plain, runs_of(PROMPTS, TOKENS), TOKENS)
        engine = engine_of(Captures(), most=4)
        engine.load(deployment(llama))
        for partition in (WHOLE, *HALVES):
            runs = runs_of(PROMPTS, TOKENS)
            for _ in range(TOKENS):
                advance_on(engine, partition, runs)
            assert [run.output for run in runs] == outputs

    def test_captures_of_a_model_leave_the_cache_of_others_alone(self, llama):
        engine = engine_of(Captures())
        engine.load(deployment(llama))
        runs = runs_of(PROMPTS, TOKENS)
        generate(engine, runs, 3)
        engine.load(deployment(llama, "two"))
        other = runs_of(PROMPTS, TOKENS)
        assert generate(engine, runs, TOKENS) == generate(engine, other, TOKENS, model="two")

    def test_those_on_use_come_once_each_and_are_no_more_than_allowed(self, llama):
        captures = Captures()
        engine = engine_of(captures, most=3, ahead=False)
        engine.load(deployment(llama))
        assert captures.made == []
        for partition in (HALVES[0], WHOLE, HALVES[1], HALVES[0], WHOLE):
            for count in (1, 3):
                runs = runs_of(PROMPTS[:count], TOKENS)
                advance_on(engine, partition, runs)
                advance_on(engine, partition, runs)
        assert captures.made == [(HALVES[0], 1), (HALVES[0], 4), (WHOLE, 1)]

    def test_without_graphs_nothing_is_captured(self, llama):
        captures = Captures()
        engine = engine_of(captures, most=0)
        engine.load(deployment(llama))
        generate(engine, runs_of(PROMPTS, TOKENS), TOKENS)
        assert captures.made == []


class TestMemory:
    def test_more_graphs_on_more_lanes_take_more(self, llama):
        need = GraphNeed(open_source(str(llama), None).config, 8, 2, 132)
        sizes = [need.planned_bytes(GraphRules(most), 3) for most in (0, 1, 13, 14, 26, 39, 40)]
        assert sizes[0] == 0
        assert sizes[:6] == sorted(set(sizes[:6]))
        assert sizes[6] == sizes[5]  # there are no more
        lane_bytes = need.lane_bytes(BUCKETS[-1])
        assert sizes[3] - sizes[2] == need.graph_bytes(1) + lane_bytes

    def test_those_on_use_are_counted_for_the_worst_that_they_can_be(self, llama):
        need = GraphNeed(open_source(str(llama), None).config, 8, 2, 132)
        for most in (1, 5, 39, 100):
            late, ahead = (
                need.planned_bytes(GraphRules(most, ahead=ahead), 3) for ahead in (False, True)
            )
            assert late >= ahead > 0

    def test_logits_of_a_large_vocabulary_are_in_it(self, llama):
        config = open_source(str(llama), None).config
        wider = dataclasses.replace(config, vocabulary=config.vocabulary + 100_000)
        small, large = (GraphNeed(one, 8, 2, 132).lane_bytes(64) for one in (config, wider))
        assert large - small == 64 * 100_000 * (4 + 2)

    def bare_bytes(self, llama):
        """What the model takes without graphs: the least that is let in."""
        source = open_source(str(llama), None)
        kv_bytes = (640 // 16 + 1) * 16 * source.config.kv_values_per_token * 4
        return source.weights_resident * 4 + kv_bytes

    def test_a_model_that_fits_without_its_graphs_alone_is_refused(self, llama):
        bare = self.bare_bytes(llama)
        engine_of(Captures(), lambda: bare, most=0).load(deployment(llama))
        captures = Captures()
        with pytest.raises(DeviceError, match="for decode graphs") as caught:
            engine_of(captures, lambda: bare, most=3).load(deployment(llama))
        assert caught.value.field == "kv_tokens"
        assert captures.made == []
        need = GraphNeed(open_source(str(llama), None).config, 8, 4, WHOLE.sms)
        rules = GraphRules(3, batch_max=4, buckets=(1, 2, 4))
        enough = bare + need.planned_bytes(rules, 3)
        engine_of(captures, lambda: enough, most=3).load(deployment(llama))
        assert len(captures.made) == 3
        with pytest.raises(DeviceError):
            engine_of(captures, lambda: enough - 1, most=3).load(deployment(llama))

    def test_graphs_that_others_may_still_capture_are_kept_free(self, llama):
        free = [10**12]
        engine = engine_of(Captures(), lambda: free[0], most=3, ahead=False)
        engine.load(deployment(llama))
        need = GraphNeed(open_source(str(llama), None).config, 8, 4, WHOLE.sms)
        rules = GraphRules(3, ahead=False, batch_max=4, buckets=(1, 2, 4))
        graphs_bytes = need.planned_bytes(rules, 3)
        free[0] = self.bare_bytes(llama) + 2 * graphs_bytes - 1
        with pytest.raises(DeviceError):
            engine.load(deployment(llama, "two"))
        free[0] += 1
        engine.load(deployment(llama, "two"))
