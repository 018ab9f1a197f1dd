"""An agent's device and its profile must belong together."""

import pytest
from fake_gpu import DENIED, FakeGpu, FakeGuard

from festina.config import AgentConfig, Config
from festina.control.profile import shipped_profiles
from festina.device.nvidia.device import NvidiaDevice
from festina.errors import ProfileError
from festina.runtime.agent_device import build, governor, profile_of
from festina.types import SmPartition

KIND = "H100-SXM5-80GB"


def profiles_without(folder, column, value):
    """A copy of a shipped profile that lacks the rows with this value."""
    lines = (shipped_profiles() / KIND / "llama-8b.csv").read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.split(",")[column : column + 1] != [value]]
    (folder / KIND).mkdir()
    (folder / KIND / "llama-8b.csv").write_text("".join(kept))
    return Config(profiles=str(folder))


def test_a_shipped_profile_fits_its_device():
    assert build(f"sim:{KIND}", Config(), 0.0).clocks is not None


@pytest.mark.parametrize(
    ("column", "value", "field"), [(2, "1980", "clock_mhz"), (1, "132", "sms")]
)
def test_a_profile_without_what_the_device_runs_at_is_refused(tmp_path, column, value, field):
    config = profiles_without(tmp_path, column, value)
    with pytest.raises(ProfileError) as caught:
        build(f"sim:{KIND}", config, 0.0)
    assert caught.value.field == field


HOPPER_CLOCKS = tuple(range(345, 1981, 15))


def nvidia(**changes):
    """An H100 that is idle at 345 MHz, as NVML shows it."""
    gpu = FakeGpu(**({"clocks": HOPPER_CLOCKS} | changes))
    return NvidiaDevice(gpu, (SmPartition(rung=0, sms=132),), FakeGuard(), now=0.0)


def test_a_profile_fits_an_idle_gpu_by_the_clock_that_its_work_runs_at():
    device = nvidia()
    table = profile_of(device, Config())
    assert device.clock_mhz() == 345
    assert governor(table, device, AgentConfig()) is not None


def test_a_gpu_whose_clocks_cannot_be_set_has_a_profile_and_no_governor():
    device = nvidia(fails={"reset_clock": DENIED})
    table = profile_of(device, Config())
    assert 1980 in table.clocks_mhz
    assert governor(table, device, AgentConfig()) is None


def test_a_profile_with_clocks_that_the_gpu_does_not_have_is_refused():
    with pytest.raises(ProfileError, match="of a device that runs at 1980"):
        profile_of(nvidia(clocks=(495, 1980)), Config())


def test_a_device_without_a_profile_has_none(tmp_path):
    assert profile_of(nvidia(), Config(profiles=str(tmp_path))) is None
