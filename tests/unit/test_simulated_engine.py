"""The simulated engine: tokens depend on content alone, time comes from physics."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from festina.config import DeploymentConfig
from festina.device import physics
from festina.device.simulated import SimulatedDevice
from festina.engine.base import BLOCK_TOKENS, Batch, Chunk
from festina.engine.content_hash import extend, extend_one
from festina.engine.simulated import SimulatedEngine, SimulatedNoise
from festina.engine.simulated_tokenizer import SimulatedTokenizer
from festina.errors import DeviceError, EngineError, UnsupportedModelError
from festina.messages import ChatTurn
from festina.types import OperatingPoint, Sampling

H100 = physics.gpu_named("h100")
EXACT = SimulatedNoise(bias=0.0, jitter=0.0)
GREEDY = Sampling()


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 0.0
        self.slept = []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def make_engine(noise=EXACT, time=None):
    time = time or FakeTime()
    device = SimulatedDevice(H100, now=0.0)
    return SimulatedEngine(device, noise, clock=time.clock, sleep=time.sleep)


def deployment(**changes):
    return DeploymentConfig(**{"name": "chat", "weights": "sim:llama-8b", **changes})


def batch_of(*chunks, sms=132, rung=0):
    partition = next(p for p in SimulatedDevice(H100, now=0.0).partitions if p.sms == sms)
    return Batch("chat", chunks, OperatingPoint(1980, sms), partition)


def chunk(token_ids, start=0, blocks=(0, 1, 2, 3), sampling=GREEDY, output_index=0):
    return Chunk(
        np.asarray(token_ids, np.int32), start, np.asarray(blocks, np.int32), sampling, output_index
    )


def generate(engine, prompt, count, blocks, cuts=(), sampling=GREEDY):
    """Prefill `prompt` cut at `cuts`, then decode, one sequence a step."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(prompt)}), len(prompt)]
    for start, end in itertools.pairwise(edges):
        last = sampling if end == len(prompt) else None
        result = engine.step(batch_of(chunk(prompt[start:end], start, blocks, last)))
    output = list(result.token_ids)
    while len(output) < count:
        start = len(prompt) + len(output) - 1
        result = engine.step(batch_of(chunk(output[-1:], start, blocks, sampling, len(output))))
        output += result.token_ids
    return output


class TestTokens:
    @given(st.lists(st.integers(0, 256), min_size=1, max_size=40), st.sets(st.integers(1, 39)))
    @settings(max_examples=40, deadline=None)
    def test_output_does_not_depend_on_chunks_or_blocks(self, prompt, cuts):
        engine = make_engine()
        engine.load(deployment())
        whole = generate(engine, prompt, 8, (0, 1, 2, 3))
        assert generate(engine, prompt, 8, (9, 4, 7, 5), cuts) == whole

    def test_output_does_not_depend_on_the_batch(self):
        engine = make_engine()
        engine.load(deployment())
        alone = [engine.step(batch_of(chunk([n, 2, 3]))).token_ids[0] for n in range(5)]
        chunks = [chunk([n, 2, 3], blocks=(n,)) for n in range(5)]
        assert list(engine.step(batch_of(*chunks)).token_ids) == alone

    def test_another_prompt_gives_another_output(self):
        engine = make_engine()
        engine.load(deployment())
        outputs = {tuple(generate(engine, [n, 7, 7], 12, (0, 1))) for n in range(20)}
        assert len(outputs) == 20

    def test_a_wrong_block_gives_another_output(self):
        engine = make_engine()
        engine.load(deployment())
        prompt = list(range(30))
        right = generate(engine, prompt, 4, (0, 1, 2))
        engine.step(batch_of(chunk(prompt, 0, (0, 1, 2))))
        wrong = engine.step(batch_of(chunk(right[:1], 30, (0, 5, 2)))).token_ids[0]
        engine.step(batch_of(chunk(prompt, 0, (0, 1, 2))))
        assert wrong != engine.step(batch_of(chunk(right[:1], 30, (0, 1, 2)))).token_ids[0]

    def test_a_chunk_that_does_not_end_the_prompt_gives_no_token(self):
        engine = make_engine()
        engine.load(deployment())
        assert engine.step(batch_of(chunk([1, 2], sampling=None))).token_ids == (None,)

    def test_the_seed_matters_only_above_zero_temperature(self):
        engine = make_engine()
        engine.load(deployment())
        greedy = [generate(engine, [5], 8, (0,), (), Sampling(seed=s)) for s in (1, 2)]
        drawn = [generate(engine, [5], 8, (0,), (), Sampling(1.0, seed=s)) for s in (1, 2, 1)]
        assert greedy[0] == greedy[1]
        assert drawn[0] != drawn[1]
        assert drawn[0] == drawn[2]

    def test_output_is_printable_text(self):
        engine = make_engine()
        loaded = engine.load(deployment())
        text = loaded.tokenizer.decode(generate(engine, [1, 2, 3], 40, (0, 1, 2)))
        assert len(text) == 40
        assert text.isprintable()

    def test_a_sequence_goes_on_in_another_engine_after_its_blocks_moved(self):
        here, there = make_engine(), make_engine()
        for engine in (here, there):
            engine.load(deployment())
        prompt = list(range(40))
        expected = generate(here, prompt, 6, (3, 1, 2))
        first = generate(here, prompt, 1, (3, 1, 2))
        data = here.export_blocks("chat", np.array([3, 1, 2], np.int32))
        there.import_blocks("chat", np.array([8, 0, 4], np.int32), data)
        output = list(first)
        while len(output) < 6:
            start = len(prompt) + len(output) - 1
            output += there.step(batch_of(chunk(output[-1:], start, (8, 0, 4)))).token_ids
        assert output == expected


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=50))
def test_the_vectorised_hash_equals_its_recurrence(token_ids):
    state, states = 12345, []
    for token in token_ids:
        state = extend_one(state, token)
        states.append(state)
    fresh = extend(12345, np.asarray(token_ids, np.int32))
    assert [int(s) for s in fresh] == states


class TestTime:
    def test_a_step_sleeps_as_long_as_physics_says(self):
        time = FakeTime()
        engine = make_engine(time=time)
        engine.load(deployment())
        time.slept.clear()
        result = engine.step(batch_of(chunk(range(48)), chunk([3], 20, (5, 6)), sms=64))
        work = physics.step_work(physics.model_named("llama-8b"), [(48, 0), (1, 20)])
        expected = float(physics.run(H100, work, 64, 1980).latency_ms)
        assert result.latency_ms == pytest.approx(expected)
        assert sum(time.slept) * 1e3 == pytest.approx(expected)
        assert result.flops == pytest.approx(float(work.flops))
        assert result.bytes_moved == pytest.approx(float(work.bytes_moved))

    def test_the_same_seed_gives_the_same_latencies_and_another_does_not(self):
        def latencies(seed):
            engine = make_engine(SimulatedNoise(seed=seed))
            engine.load(deployment())
            return [engine.step(batch_of(chunk([1, 2, 3]))).latency_ms for _ in range(5)]

        assert latencies(1) == latencies(1)
        assert latencies(1) != latencies(2)
        assert len(set(latencies(1))) == 5

    def test_the_bias_belongs_to_model_and_phase(self):
        noise = SimulatedNoise(bias=0.1, jitter=0.0, seed=3)
        engine = make_engine(noise)
        engine.load(deployment())
        exact = make_engine()
        exact.load(deployment())
        ratios = []
        for one in (chunk([1, 2, 3]), chunk([4], 3), chunk([1] * 9), chunk([4], 9)):
            strayed, true = (e.step(batch_of(one)).latency_ms for e in (engine, exact))
            ratios.append(strayed / true)
        assert ratios[0] == pytest.approx(ratios[2])
        assert ratios[1] == pytest.approx(ratios[3])
        assert ratios[0] != pytest.approx(ratios[1])

    def test_loading_takes_as_long_as_the_weights_need(self):
        time = FakeTime()
        make_engine(time=time).load(deployment())
        expected = physics.load_ms(H100, physics.model_named("llama-8b").resident_bytes)
        assert time.now * 1e3 == pytest.approx(expected)


class TestMemory:
    def test_the_pool_has_the_blocks_asked_for(self):
        loaded = make_engine().load(deployment(kv_tokens=1000, context_tokens=10**6))
        assert loaded.kv_blocks == 63
        assert loaded.shape.context_tokens == 131072
        assert loaded.shape.kv_bytes_per_token == 131072

    def test_what_does_not_fit_is_a_typed_error_and_unloading_makes_room(self):
        engine = make_engine()
        for name in ("a", "b"):
            engine.load(deployment(name=name, weights="sim:qwen-14b"))
        with pytest.raises(DeviceError, match="needs"):
            engine.load(deployment(name="c", weights="sim:qwen-14b"))
        engine.unload("a")
        engine.load(deployment(name="c", weights="sim:qwen-14b"))

    def test_unloading_an_unknown_model_is_the_callers_error(self):
        with pytest.raises(KeyError):
            make_engine().unload("nobody")


class TestErrors:
    @pytest.mark.parametrize("weights", ["smollm2-135m", "sim:nothing", "/tmp/weights.gguf"])
    def test_weights_that_are_no_shape_are_refused(self, weights):
        with pytest.raises(UnsupportedModelError, match="llama-8b"):
            make_engine().load(deployment(weights=weights))

    @pytest.mark.parametrize("blocks", [(), (0,), (0, 1000000), (0, -1)])
    def test_a_bad_block_table_is_a_typed_error(self, blocks):
        engine = make_engine()
        engine.load(deployment())
        with pytest.raises(EngineError, match="blocks"):
            engine.step(batch_of(chunk(range(BLOCK_TOKENS + 1), blocks=blocks)))

    def test_a_model_that_is_not_resident_is_a_typed_error(self):
        with pytest.raises(EngineError, match="chat"):
            make_engine().step(batch_of(chunk([1])))

    def test_imported_blocks_must_have_the_pools_shape(self):
        engine = make_engine()
        engine.load(deployment())
        with pytest.raises(EngineError, match="uint8"):
            engine.import_blocks("chat", np.array([0, 1]), np.zeros((1, 128), np.uint8))


class TestTokenizer:
    @given(st.text(max_size=50))
    def test_text_comes_back(self, text):
        tokenizer = SimulatedTokenizer()
        assert tokenizer.decode(tokenizer.encode(text)) == text

    def test_a_conversation_opens_the_assistants_line(self):
        tokenizer = SimulatedTokenizer()
        turns = (ChatTurn("system", "be brief"), ChatTurn("user", "hi"))
        text = tokenizer.decode(tokenizer.encode_chat(turns))
        assert text == "system: be brief\nuser: hi\nassistant: "

    def test_a_cut_character_gives_the_replacement_character(self):
        assert SimulatedTokenizer().decode(list("é".encode())[:1]) == "�"

    def test_the_end_token_has_no_text(self):
        tokenizer = SimulatedTokenizer()
        assert tokenizer.decode([65, *tokenizer.end_ids]) == "A"


def test_a_step_goes_on_at_a_clock_that_was_asked_for_before_it_started():
    def step_ms(before_ms):
        """Of a prompt that starts so long before the clock falls."""
        time = FakeTime()
        device = SimulatedDevice(H100, now=0.0)
        engine = SimulatedEngine(device, EXACT, clock=time.clock, sleep=time.sleep)
        engine.load(deployment())
        device.advance(time.now)
        device.set_clock_mhz(570)
        time.now += (H100.clock_switch_ms - before_ms) / 1e3
        device.advance(time.now)
        return engine.step(batch_of(chunk(range(64)))).latency_ms

    slow_ms, fast_ms = step_ms(0.0), step_ms(H100.clock_switch_ms)
    assert fast_ms < slow_ms < H100.clock_switch_ms
    assert step_ms(fast_ms / 4) == pytest.approx(fast_ms / 4 + 0.75 * slow_ms, rel=1e-6)
