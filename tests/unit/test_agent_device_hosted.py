"""Where an agent's engine runs: in a process of its own, or within."""

import pytest

from festina.config import AgentConfig, Config
from festina.engine.cpu.engine import CpuEngine
from festina.engine.hosted.engine import HostedEngine
from festina.engine.simulated import SimulatedEngine
from festina.errors import ConfigError, DeviceError
from festina.runtime.agent_device import build


def config(where):
    return Config(agent=AgentConfig(host_engine=where))


@pytest.mark.parametrize(
    ("gpu", "where", "kind"),
    [
        ("cpu", "auto", HostedEngine),
        ("cpu", "process", HostedEngine),
        ("cpu", "inline", CpuEngine),
        ("sim", "auto", SimulatedEngine),
        ("sim", "inline", SimulatedEngine),
    ],
)
def test_real_devices_have_a_process_and_simulated_ones_have_none(gpu, where, kind):
    built = build(gpu, config(where), 0.0)
    try:
        assert isinstance(built.engine, kind)
    finally:
        built.close()
        built.device.close()


def test_a_simulated_device_cannot_have_a_process():
    with pytest.raises(ConfigError) as caught:
        build("sim", config("process"), 0.0)
    assert caught.value.field == "agent.host_engine"


def test_a_gpu_that_is_not_there_is_told_with_its_type_from_the_process(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DeviceError):
        build("cuda:0", config("auto"), 0.0)
