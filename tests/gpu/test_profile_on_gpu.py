"""A few points of a profile on a real GPU: its own counter, and the rungs of its own ladder."""

import os
import time

import pytest

from festina.config import Config
from festina.device.nvidia.opening import cuda_device_count
from festina.engine.measured_profile import Origin, Subject, measure
from festina.engine.profile_plan import ProfilePlan
from festina.errors import DeviceError, UnsupportedEngineError
from festina.runtime.agent_device import open_engine
from festina.runtime.measuring import measuring
from festina.types import Provenance

if os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING") == "1":
    pytest.skip("PyTorch captures no graphs without its memory pools", allow_module_level=True)


@pytest.fixture
def opened():
    try:
        if cuda_device_count() == 0:
            pytest.skip("no NVIDIA GPU")
        device, engine = open_engine("cuda:0", measuring(Config()), time.monotonic())
    except (DeviceError, UnsupportedEngineError) as error:
        pytest.skip(str(error))
    yield device, engine
    device.close()


def test_points_are_measured_over_their_window_and_fewer_sms_take_longer(opened):
    device, engine = opened
    sms = tuple(sorted(one.sms for one in device.partitions if one.side == 0))
    plan = ProfilePlan(
        prefill_tokens=(512,),
        prefill_cached=(0,),
        decode_batches=(8,),
        decode_contexts=(256,),
        repeats=3,
        point_s=1.0,
        settle_s=0.2,
        sms=(sms[0], sms[-1]),
        clocks_mhz=(device.run_clock_mhz(),),
    )
    origin = Origin("a test", "2026-01-01", device.kind)
    measured = measure(engine, device, Subject("m", "random:llama-3b", plan, origin))
    works = {(one.phase, one.sms): one for one in measured.measurements if one.phase != "idle"}
    for one in works.values():
        assert one.window_s >= 1.0
        assert one.power_source is Provenance.MEASURED
        assert one.covered > 0.5
    assert works["prefill", sms[0]].latency_ms > works["prefill", sms[-1]].latency_ms
    assert works["prefill", sms[-1]].power_w > works["prefill", sms[0]].power_w
