"""A real GPU as a device: sensors move; clocks are set where they may be, and given back."""

import time

import pytest

from festina import _core
from festina.device.nvidia.nvml import Nvml
from festina.device.nvidia.opening import cuda_device_count, open_device, open_ladder
from festina.errors import DeviceError


@pytest.fixture
def device():
    try:
        if cuda_device_count() == 0:
            pytest.skip("no NVIDIA GPU")
    except DeviceError as error:
        pytest.skip(str(error))
    with open_device(0, time.monotonic()) as opened:
        yield opened


def settled_mhz(device, clock_mhz):
    """The clock a while after it was asked for."""
    device.set_clock_mhz(clock_mhz)
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        time.sleep(0.05)
        device.advance(time.monotonic())
    return device.clock_mhz()


def test_sensors_give_what_a_gpu_can_have(device):
    before_j = device.energy_j(time.monotonic()).value
    time.sleep(1.0)
    now = time.monotonic()
    used_j = device.energy_j(now).value - before_j
    assert 5.0 < device.power_w(now).value <= device.power_cap_w * 1.2
    assert used_j == pytest.approx(device.power_w(now).value, rel=0.5)
    assert 0 < device.clock_mhz() <= device.run_clock_mhz()
    assert 0 < device.health().temperature_c < 110


def test_the_ladder_is_that_of_the_device(device):
    ladder = open_ladder(0)
    assert ladder.partitions[0].sms == device.sms_total
    for first, second in zip(ladder.partitions[1::2], ladder.partitions[2::2], strict=True):
        assert first.rung == second.rung
        assert first.sms + second.sms <= device.sms_total


def test_clocks_hold_and_are_given_back_or_the_reason_is_told(device):
    if not device.clocks_mhz:
        assert device.clocks_why_none
        pytest.skip(f"clocks cannot be set here: {device.clocks_why_none}")
    asked_mhz = device.clocks_mhz[len(device.clocks_mhz) // 2]
    assert settled_mhz(device, asked_mhz) <= asked_mhz
    device.close()
    with Nvml() as nvml:
        gpu = nvml.gpu(_core.CudaDriver().device_uuid(0))
        assert "clock setting" not in gpu.throttle_reasons()
