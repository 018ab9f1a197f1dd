"""Every uncertain constant moves what it says and keeps what was measured."""

import numpy as np
import pytest

from festina.device import physics
from festina.errors import BadRequestError
from festina.simulator.sensitivity import (
    SENSITIVITIES,
    reference_points,
    setting_of,
    with_setting,
)

GPUS = [physics.gpu_named(name) for name in ("h100", "h200", "a100")]
H100 = GPUS[0]
ENDS = [(name, end) for name, span in SENSITIVITIES.items() for end in (span.low, span.high)]
DECODE = physics.decode_work(physics.model_named("llama-8b"), 16, 1024)


def decode_j(gpu, clock_mhz):
    point = physics.run(gpu, DECODE, gpu.sms_total, clock_mhz)
    return float(point.dynamic_w * point.latency_ms) / 1e3


def test_ranges_hold_the_default():
    for name, (low, default, high) in SENSITIVITIES.items():
        assert low < default < high
        assert default == setting_of(H100, name)
        assert with_setting(H100, name, default) is H100


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.aliases[0])
@pytest.mark.parametrize(("name", "value"), ENDS)
def test_a_setting_reads_back_and_moves_no_other(gpu, name, value):
    changed = with_setting(gpu, name, value)
    for other in SENSITIVITIES:
        expected = value if other == name else setting_of(gpu, other)
        assert setting_of(changed, other) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.aliases[0])
@pytest.mark.parametrize("value", [85.0, 140.0])
def test_idle_power_moves_at_every_clock_and_the_parked_device_stays(gpu, value):
    changed = with_setting(gpu, "idle_w", value)
    assert float(physics.idle_w(changed, gpu.clock_max_mhz)) == pytest.approx(value)
    assert physics.parked_w(changed) == pytest.approx(physics.parked_w(gpu))
    above, before = (
        physics.idle_w(each, gpu.clocks_mhz) - physics.parked_w(gpu) for each in (changed, gpu)
    )
    assert np.allclose(above / before, above[0] / before[0])
    assert np.all(above > 0.0)
    assert decode_j(changed, 990) == pytest.approx(decode_j(gpu, 990))


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.aliases[0])
@pytest.mark.parametrize("share", [0.0, 0.15, 0.5])
def test_the_memorys_share_keeps_the_power_of_the_reference_steps(gpu, share):
    changed = with_setting(gpu, "memory_share", share)
    for work, clock in reference_points(gpu):
        powers = []
        for each in (gpu, changed):
            seconds = physics.latency_ms(each, work, gpu.sms_total, clock) / 1e3
            rates = work.flops / seconds, work.bytes_moved / seconds
            powers.append(float(physics.dynamic_w(each, *rates, clock)))
        assert powers[1] == pytest.approx(powers[0], rel=1e-6)
    assert min(changed.power.flop_j, changed.power.chip_j) > 0.0


def test_the_more_of_a_byte_the_memory_takes_the_less_a_low_clock_saves():
    saved = []
    for share in np.linspace(*SENSITIVITIES["memory_share"][::2], 5):
        gpu = with_setting(H100, "memory_share", share)
        saved.append(1.0 - decode_j(gpu, 990) / decode_j(gpu, 1980))
    assert np.all(np.diff(saved) < -0.02)


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.aliases[0])
def test_the_clocks_effect_on_decode_keeps_the_top_clock_and_prefill(gpu):
    prefill = physics.prefill_work(physics.model_named("llama-8b"), 1024)
    slowdown = []
    for c in np.linspace(*SENSITIVITIES["decode_clock_c"][::2], 5):
        changed = with_setting(gpu, "decode_clock_c", c)
        fast, slow = (
            physics.latency_ms(changed, DECODE, gpu.sms_total, clock)
            for clock in (gpu.clock_max_mhz, 0.5 * gpu.clock_max_mhz)
        )
        assert fast == pytest.approx(
            physics.latency_ms(gpu, DECODE, gpu.sms_total, gpu.clock_max_mhz)
        )
        slowdown.append(slow / fast)
        assert physics.latency_ms(changed, prefill, 64, 990) == physics.latency_ms(
            gpu, prefill, 64, 990
        )
    assert np.all(np.diff(slowdown) > 0.02)


def test_the_time_of_a_clock_switch_is_the_devices():
    assert with_setting(H100, "clock_switch_ms", 5.0).clock_switch_ms == 5.0


def test_unknown_settings_and_values_out_of_range_are_typed_errors():
    with pytest.raises(BadRequestError, match="memory_share"):
        with_setting(H100, "colour", 1.0)
    with pytest.raises(BadRequestError, match="5 to 500"):
        with_setting(H100, "clock_switch_ms", 1.0)
    with pytest.raises(BadRequestError, match="85 to 140"):
        with_setting(H100, "idle_w", float("nan"))
