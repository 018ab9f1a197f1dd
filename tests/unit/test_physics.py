"""The analytic GPU against published figures, and the laws that any GPU obeys."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from festina.device import physics
from festina.errors import DeviceError, UnsupportedModelError
from festina.types import Phase

A100, H100, H200 = (physics.gpu_named(name) for name in ("a100", "h100", "h200"))

# LLaMA-7B on one A100-80GB under MPS: SM share %, batch, tokens, ms. hao-ai-lab/MuxServe,
# examples/placement/llama.json (Apache-2.0). These shares were held out of the fit.
PREFILL_MS = [
    (40, 1, 128, 27.65),
    (40, 1, 512, 95.76),
    (40, 4, 256, 162.76),
    (40, 8, 512, 605.41),
    (40, 32, 128, 601.63),
    (40, 64, 256, 2444.92),
    (70, 1, 128, 17.2),
    (70, 1, 512, 53.83),
    (70, 4, 256, 97.97),
    (70, 8, 512, 384.98),
    (70, 32, 128, 383.58),
    (70, 64, 256, 1518.54),
]
DECODE_MS = [
    (40, 1, 128, 14.51),
    (40, 1, 512, 15.49),
    (40, 4, 256, 15.14),
    (40, 8, 512, 16.59),
    (40, 32, 128, 18.5),
    (40, 64, 256, 26.27),
    (70, 1, 128, 12.04),
    (70, 1, 512, 13.0),
    (70, 4, 256, 12.61),
    (70, 8, 512, 13.93),
    (70, 32, 128, 15.21),
    (70, 64, 256, 21.25),
]


def total_w(gpu, point, clock_mhz):
    return point.dynamic_w + physics.idle_w(gpu, clock_mhz)


def mean_error(rows, latency_of):
    return np.mean([abs(latency_of(*row[:3]) / row[3] - 1.0) for row in rows])


class TestPublishedFigures:
    def test_prefill_at_held_out_sm_shares_is_within_6_percent(self):
        model = physics.model_named("llama-7b")

        def latency(share, batch, tokens):
            work = physics.step_work(model, [(tokens, 0)] * batch)
            return physics.latency_ms(A100, work, share * 1.08, 1410)

        assert mean_error(PREFILL_MS, latency) < 0.06

    def test_decode_at_held_out_sm_shares_is_within_6_percent(self):
        model = physics.model_named("llama-7b")

        def latency(share, batch, context):
            work = physics.decode_work(model, batch, context)
            return physics.latency_ms(A100, work, share * 1.08, 1410)

        assert mean_error(DECODE_MS, latency) < 0.06

    @pytest.mark.parametrize(("clock_mhz", "low", "high"), [(1005, 1.04, 1.09), (705, 1.22, 1.37)])
    def test_a100_decode_slows_with_the_clock_as_measured(self, clock_mhz, low, high):
        work = physics.decode_work(physics.model_named("llama-8b"), np.array([1, 4, 16, 64]), 256)
        slow, fast = (physics.latency_ms(A100, work, 108, clock) for clock in (clock_mhz, 1410))
        assert np.all((slow / fast > low - 0.01) & (slow / fast < high + 0.01))

    def test_a100_decode_saves_about_36_percent_at_1050_mhz(self):
        work = physics.decode_work(physics.model_named("llama-8b"), np.array([1, 8, 64]), 256)
        energy = {}
        for clock in (1050, 1410):
            point = physics.run(A100, work, 108, clock)
            energy[clock] = total_w(A100, point, clock) * point.latency_ms
        assert np.all(np.abs(energy[1050] / energy[1410] - 0.64) < 0.06)

    def test_h200_decode_saves_up_to_32_percent_from_its_clock(self):
        clocks = np.array(H200.clocks_mhz)
        work = physics.decode_work(physics.model_named("llama-8b"), 1, 512)
        point = physics.run(H200, work, 132, clocks)
        energy = total_w(H200, point, clocks) * point.latency_ms
        assert 0.26 < 1.0 - energy.min() / energy[-1] < 0.38

    @pytest.mark.parametrize(("clock_mhz", "power_w"), [(1000, 390), (1320, 698), (1395, 702)])
    def test_h100_dense_gemm_power_is_within_9_percent(self, clock_mhz, power_w):
        peak_share, flops_per_clock = 0.94, 132 * 4096
        rate = peak_share * flops_per_clock * clock_mhz * 1e6
        modelled = physics.idle_w(H100, clock_mhz) + physics.dynamic_w(H100, rate, 0, clock_mhz)
        assert modelled == pytest.approx(power_w, rel=0.09)

    def test_h200_streaming_power_is_within_3_percent(self):
        modelled = physics.idle_w(H200, 1980) + physics.dynamic_w(H200, 0, 3.76e12, 1980)
        assert modelled == pytest.approx(572, rel=0.03)

    @pytest.mark.parametrize(("clock_mhz", "power_w"), [(1020, 81.8), (1545, 98.3)])
    def test_h200_idle_power_follows_the_clock(self, clock_mhz, power_w):
        assert physics.idle_w(H200, clock_mhz) == pytest.approx(power_w, rel=0.02)

    def test_long_prefill_on_an_h100_is_held_to_the_papers_1635_mhz_by_its_cap(self):
        work = physics.prefill_work(physics.model_named("llama-8b"), 4096)
        assert physics.run(H100, work, 132, 1980).clock_mhz == pytest.approx(1635, rel=0.05)

    def test_h200_decode_keeps_its_speed_on_few_sms_as_measured(self):
        # Slowdown of a decode-like step alone, by SMs; sgl-project/sglang-omni 1934.
        measured = {48: 1.21, 64: 1.09, 96: 1.06}
        work = physics.decode_work(physics.model_named("llama-3b"), 1, 256)
        whole = physics.latency_ms(H200, work, 132, 1980)
        for sms, slowdown in measured.items():
            assert physics.latency_ms(H200, work, sms, 1980) / whole == pytest.approx(
                slowdown, rel=0.07
            )


GPUS = st.sampled_from(sorted(physics.GPUS))
MODELS = st.sampled_from(sorted(physics.MODELS))
TOKENS = st.integers(1, 16384)


@st.composite
def works(draw):
    model = physics.model_named(draw(MODELS))
    if draw(st.booleans()):
        return physics.prefill_work(model, draw(TOKENS), draw(TOKENS) - 1)
    return physics.decode_work(model, draw(st.integers(1, 512)), draw(TOKENS))


class TestLaws:
    @given(GPUS, works())
    @settings(max_examples=60, deadline=None)
    def test_more_sms_are_never_slower(self, kind, work):
        gpu = physics.GPUS[kind]
        sms = np.arange(4, gpu.sms_total + 1, 4)
        for clock in (gpu.clocks_mhz[0], gpu.clock_max_mhz):
            latency = physics.run(gpu, work, sms, clock).latency_ms
            assert np.all(np.diff(latency) <= 1e-6 * latency[1:])

    @given(GPUS, works(), st.floats(0.05, 1.0))
    @settings(max_examples=60, deadline=None)
    def test_a_higher_clock_is_never_slower(self, kind, work, share):
        gpu = physics.GPUS[kind]
        clocks = np.linspace(gpu.clocks_mhz[0], gpu.clock_max_mhz, 40)
        latency = physics.run(gpu, work, share * gpu.sms_total, clocks).latency_ms
        assert np.all(np.diff(latency) <= 1e-6 * latency[1:])

    @given(GPUS, works(), st.floats(0.05, 1.0))
    @settings(max_examples=60, deadline=None)
    def test_power_stays_between_idle_and_the_cap(self, kind, work, share):
        gpu = physics.GPUS[kind]
        clocks = np.array(gpu.clocks_mhz)
        point = physics.run(gpu, work, share * gpu.sms_total, clocks)
        assert np.all(point.dynamic_w > 0.0)
        assert np.all(total_w(gpu, point, clocks) <= gpu.power.cap_w * (1 + 1e-9))
        assert np.all(point.clock_mhz <= clocks)

    @given(GPUS, MODELS, TOKENS, TOKENS)
    @settings(max_examples=60, deadline=None)
    def test_more_work_is_never_quicker(self, kind, name, tokens, context):
        gpu, model = physics.GPUS[kind], physics.model_named(name)
        prefill = physics.prefill_work(model, np.array([tokens, tokens + 1]), context)
        decode = physics.decode_work(model, 8, np.array([context, context + 1]))
        for work in (prefill, decode):
            assert np.diff(physics.latency_ms(gpu, work, gpu.sms_total, gpu.clocks_mhz[0])) > 0.0

    @given(st.lists(st.tuples(st.integers(1, 512), st.integers(1, 4096)), min_size=1, max_size=8))
    @settings(max_examples=60, deadline=None)
    def test_a_step_does_the_work_of_its_chunks_and_reads_the_weights_once(self, chunks):
        model = physics.model_named("llama-8b")
        step = physics.step_work(model, chunks)
        alone = [physics.prefill_work(model, new, old) for new, old in chunks]
        assert step.flops == pytest.approx(sum(float(w.flops) for w in alone))
        assert step.kv_bytes == pytest.approx(sum(float(w.kv_bytes) for w in alone))
        assert step.weight_bytes == model.weight_bytes


def test_arrays_and_scalars_agree():
    model = physics.model_named("qwen-14b")
    batches, clocks = np.array([[1], [16], [128]]), np.array(H100.clocks_mhz)
    grid = physics.run(H100, physics.decode_work(model, batches, 1024), 64, clocks)
    for i, batch in enumerate(batches[:, 0]):
        for j, clock in enumerate(clocks):
            one = physics.run(H100, physics.decode_work(model, batch, 1024), 64, clock)
            assert one.latency_ms == pytest.approx(grid.latency_ms[i, j])
            assert one.dynamic_w == pytest.approx(grid.dynamic_w[i, j])


def test_a_step_of_decodes_alone_is_a_decode_and_any_prefill_makes_it_a_prefill():
    model = physics.model_named("llama-3b")
    assert physics.step_work(model, [(1, 50), (1, 7)]).phase is Phase.DECODE
    assert physics.step_work(model, [(1, 50), (32, 0)]).phase is Phase.PREFILL
    assert physics.step_work(model, [(1, 0)]).phase is Phase.PREFILL


@pytest.mark.parametrize(
    ("name", "billions", "kv_bytes"),
    [("llama-8b", 7.50, 131072), ("qwen-14b", 13.99, 196608), ("smollm2-135m", 0.1345, 23040)],
)
def test_shapes_have_the_sizes_of_the_published_models(name, billions, kv_bytes):
    model = physics.model_named(name)
    assert model.parameters / 1e9 == pytest.approx(billions, rel=0.005)
    assert model.kv_bytes_per_token == kv_bytes


def test_co_runners_stretch_each_other_only_beyond_the_bandwidth():
    rate = H100.decode.kv_bytes_per_s
    assert physics.bandwidth_stretch(H100, [0.4 * rate, 0.5 * rate]) == 1.0
    assert physics.bandwidth_stretch(H100, [0.8 * rate, 0.7 * rate]) == pytest.approx(1.5)


def test_parking_saves_the_context_and_costs_less_than_the_lowest_clock():
    for gpu in physics.GPUS.values():
        assert physics.parked_w(gpu) < physics.idle_w(gpu, gpu.clocks_mhz[0])


def test_names_are_found_in_any_case_and_unknown_ones_are_typed_errors():
    assert physics.gpu_named("H100-sxm5-80gb") is H100
    with pytest.raises(DeviceError, match="a100, h100, h200"):
        physics.gpu_named("b200")
    with pytest.raises(UnsupportedModelError, match="llama-8b"):
        physics.model_named("llama-9000b")
