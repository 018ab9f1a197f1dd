"""pynvml, the clock watchdog and the commands on a pretended libnvidia-ml, in real processes."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from c_library import build_library

SUPPORT = Path(__file__).parents[1] / "support"
UUID = "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"


class Machine:
    """Where processes find the pretended libraries, and what these were asked to change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "nvml.log"

    def build(self, *defines: str) -> None:
        build_library(SUPPORT / "fake_nvml.c", self.folder / "libnvidia-ml.so.1", *defines)

    def build_driver(self, *defines: str) -> None:
        build_library(SUPPORT / "fake_driver.c", self.folder / "libcuda.so.1", *defines)

    def start(self, *command: str) -> subprocess.Popen[str]:
        found = {"LD_LIBRARY_PATH": str(self.folder), "FAKE_NVML_LOG": str(self._log)}
        return subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | found,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str) -> tuple[int, str, str]:
        process = self.start(*command)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def calls(self) -> list[tuple[int, str]]:
        """Process and change, in order."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [(int(pid), call) for pid, call in (line.split(" ", 1) for line in lines)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def held(machine: Machine) -> tuple[subprocess.Popen[str], int]:
    """An agent that holds the clock, and the pid of its watchdog."""
    agent = machine.start(str(SUPPORT / "nvidia_agent.py"), "hold")
    return agent, int(agent.stdout.readline())


def ended(agent: subprocess.Popen[str], number: int) -> None:
    agent.send_signal(number)
    assert agent.wait(30) == -number
    agent.stdout.close()
    agent.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_clock_is_given_back_however_the_agent_is_killed(machine, number):
    machine.build()
    agent, watchdog = held(machine)
    assert machine.calls() == [(agent.pid, "reset 0 0"), (agent.pid, "lock 990 990")]
    ended(agent, number)
    wait_until(lambda: len(machine.calls()) == 3)
    assert machine.calls()[2] == (watchdog, "reset 0 0")


def test_the_watchdog_outlives_the_signals_that_end_a_foreground_job(machine):
    machine.build()
    agent, watchdog = held(machine)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(watchdog, number)
    ended(agent, signal.SIGKILL)
    wait_until(lambda: (watchdog, "reset 0 0") in machine.calls())


def test_an_agent_that_ends_well_gives_the_clock_back_itself(machine):
    machine.build()
    code, out, err = machine.run(str(SUPPORT / "nvidia_agent.py"), "close")
    assert (code, err) == (0, "")
    calls = machine.calls()
    assert [call for _, call in calls] == ["reset 0 0", "lock 990 990", "reset 0 0"]
    assert int(out) not in {pid for pid, _ in calls}


def test_a_watchdog_that_finds_no_gpu_is_an_error_before_any_lock(machine):
    machine.build()
    code = "from festina.device.nvidia.watchdog import Watchdog; Watchdog('GPU-none').arm()"
    status, _, err = machine.run("-c", code)
    assert status == 1
    assert "DeviceError: nvml: the clock watchdog of GPU-none did not start" in err
    assert machine.calls() == []


def test_a_watchdog_that_is_not_ready_in_time_is_an_error(machine):
    machine.build()
    code = (
        "from festina.device.nvidia.nvml import Nvml\n"
        "from festina.device.nvidia.watchdog import Watchdog\n"
        "Watchdog(Nvml().gpus()[0].uuid(), start_s=0.0).arm()"
    )
    status, _, err = machine.run("-c", code)
    assert status == 1
    assert "did not start" in err
    assert [call for _, call in machine.calls()] == ["reset 0 0"]  # it thinks its agent has died


def test_env_shows_what_nvml_says(machine):
    machine.build()
    _, out, _ = machine.run("-m", "festina", "env", "--json")
    cuda = json.loads(out)["cuda"]
    assert (cuda["driver"], cuda["why_none"]) == ("580.00", "")
    (gpu,) = cuda["devices"]
    assert gpu["uuid"] == UUID
    assert (gpu["power_w"], gpu["power_limit_w"], gpu["temperature_c"]) == (123.456, 700.0, 31)
    assert (gpu["clock_mhz"], gpu["clocks_mhz"]) == (345, [495, 1980])
    assert gpu["throttle"] == ["idle", "power cap"]
    _, text, _ = machine.run("-m", "festina", "env")
    assert "NVIDIA H100 80GB HBM3, 80 GiB, 123 of 700 W, 345 MHz, clocks 495-1980 MHz" in text
    assert machine.calls() == []


def test_a_driver_without_instant_power_gives_its_mean(machine):
    machine.build("NO_INSTANT")
    _, out, _ = machine.run("-m", "festina", "env", "--json")
    assert json.loads(out)["cuda"]["devices"][0]["power_w"] == 100.0


def test_env_tells_of_a_gpu_that_is_lost(machine):
    machine.build("LOST")
    _, out, _ = machine.run("-m", "festina", "env", "--json")
    assert "GPU is lost" in json.loads(out)["cuda"]["why_none"]


@pytest.mark.parametrize(
    ("define", "expected"),
    [("LOST", "DeviceLostError"), ("RESET", "DeviceLostError"), ("OK", "none")],
)
def test_every_sensor_of_a_gpu_that_is_lost_says_so_by_its_type(machine, define, expected):
    machine.build(define)
    code, out, err = machine.run("-c", SENSORS)
    assert (code, err) == (0, "")
    names = ("power_w", "energy_j", "clock_mhz", "temperature_c")
    assert out.splitlines() == [f"{name} {expected}" for name in names]


SENSORS = """
from festina.device.nvidia.nvml import Nvml
from festina.errors import DeviceError
with Nvml() as nvml:
    (gpu,) = nvml.gpus()
    for name in ("power_w", "energy_j", "clock_mhz", "temperature_c"):
        try:
            getattr(gpu, name)()
            print(name, "none")
        except DeviceError as error:
            print(name, type(error).__name__)
"""

OPEN = """
from festina.device.nvidia.opening import open_device
with open_device(0, 0.0) as device:
    print(device.kind, device.sms_total, device.clocks_mhz, device.clocks_why_none)
"""


@pytest.mark.parametrize(
    ("define", "expected"),
    [
        ("OK", "H100-SXM5-80GB 132 (495, 990, 1485, 1980) \n"),
        ("NO_PERMISSION", "132 () nvmlDeviceResetGpuLockedClocks: Insufficient Permissions\n"),
        ("NO_LOCK", "132 () nvmlDeviceResetGpuLockedClocks: Function Not Found\n"),
    ],
)
def test_cuda_and_nvml_meet_at_the_identity_of_a_gpu(machine, define, expected):
    machine.build(define)
    machine.build_driver()
    code, out, err = machine.run("-c", OPEN)
    assert (code, err) == (0, "")
    assert out.endswith(expected)


LADDER = """
from festina.device.nvidia.opening import open_device, open_ladder
ladder = open_ladder(0)
with open_device(0, 0.0, ladder.partitions) as device:
    print(sorted({one.sms for one in device.partitions}), device.sms_total)
    print(len({ladder.streams(one) for one in ladder.partitions}))
"""


def test_the_ladder_of_a_gpu_is_what_its_driver_makes(machine):
    machine.build()
    machine.build_driver()
    code, out, err = machine.run("-c", LADDER)
    assert (code, err) == (0, "")
    assert out == "[16, 20, 32, 36, 48, 52, 64, 68, 80, 84, 96, 100, 112, 116, 132] 132\n15\n"


def test_a_driver_without_green_contexts_is_a_typed_error(machine):
    machine.build()
    machine.build_driver('FAKE_MISSING="cuGreenCtxCreate"')
    code, _, err = machine.run("-c", LADDER)
    assert code == 1
    assert "DeviceUnsupportedError: gpus: " in err
    assert "no cuGreenCtxCreate" in err


SERVE = (
    "-m",
    "festina",
    "serve",
    "--deploy",
    "chat=sim:llama-8b,ttft_ms=1000,tbt_ms=100",
    "--gpus",
)


def test_a_profile_without_a_driver_is_one_clear_line(machine):
    (machine.folder / "libcuda.so.1").write_text("no library")
    out_at = str(machine.folder / "out")
    command = ("profile", "--device", "cuda:0", "--model", "llama-8b", "--out", out_at)
    code, out, err = machine.run("-m", "festina", *command)
    assert (code, out) == (1, "")
    assert err == "festina: device: gpus: no CUDA driver: cannot load libcuda.so.1\n"
    assert not (machine.folder / "out").exists()


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_a_profile_without_pytorch_says_what_to_install(machine):
    machine.build()
    machine.build_driver()
    code, _, err = machine.run("-m", "festina", "profile", "--device", "cuda:0", "--model", "yi-9b")
    assert code == 1
    assert "pip install 'festina[gpu]'" in err
    assert machine.calls() == []


def test_serving_on_gpus_without_a_driver_is_one_clear_line(machine):
    (machine.folder / "libcuda.so.1").write_text("no library")
    code, out, err = machine.run(*SERVE, "cuda:all")
    assert (code, out) == (1, "")
    assert err == "festina: device: gpus: no CUDA driver: cannot load libcuda.so.1\n"


def test_serving_on_a_gpu_that_is_not_there_names_those_that_are(machine):
    machine.build_driver()
    code, _, err = machine.run(*SERVE, "cuda:7")
    assert code == 2
    assert "gpus: no GPU cuda:7 among the 2 that CUDA sees (expected an ordinal below 2)" in err


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_serving_on_a_gpu_without_pytorch_names_the_extra(machine):
    machine.build()
    machine.build_driver()
    code, _, err = machine.run(*SERVE, "cuda:0")
    assert code == 1
    assert "unsupported_engine: gpus: models run on GPUs by PyTorch" in err
    assert "pip install 'festina[gpu]'" in err
    assert list(machine.calls()) == []  # its clock has not been touched
