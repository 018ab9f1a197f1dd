"""tools/gpu_check.sh says what it could not run, and goes on after what failed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from c_library import build_library

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"


@pytest.fixture
def check(tmp_path):
    """Runs the script with programs that pretend, in an environment of its own."""
    libraries, programs = tmp_path / "libraries", tmp_path / "venv" / "bin"
    libraries.mkdir()
    programs.mkdir(parents=True)

    def pretend(name, script):
        program = programs / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    pretend("pytest", "exit 0")
    pretend("festina", 'echo "festina $*" >> "$CALLS"')
    # The real interpreter looks for a GPU; whatever else it is asked for, it pretends to run.
    pretend(
        "python",
        f'case "$1 $2" in *cuda_device_count*) exec {sys.executable} "$@";; '
        '"-c import torch") exit "$TORCH";; '
        '*require_kernels*) exit "$KERNELS";; '
        '*) echo "python $*" >> "$CALLS"; exit "$BENCH";; esac',
    )

    def run(driver=True, torch=0, bench=0, kernels=0, sanitizer=True):
        if driver:
            build_library(SUPPORT / "fake_driver.c", libraries / "libcuda.so.1")
        else:
            (libraries / "libcuda.so.1").write_text("no library")
        tool = pretend("compute-sanitizer", 'echo "sanitizer $*" >> "$CALLS"')
        found = {
            "VENV": str(tmp_path / "venv"),
            "CALLS": str(tmp_path / "calls"),
            "TORCH": str(torch),
            "BENCH": str(bench),
            "KERNELS": str(kernels),
            "LD_LIBRARY_PATH": str(libraries),
            "SANITIZER": str(tool) if sanitizer else "/nowhere",
        }
        done = subprocess.run(
            [ROOT / "tools" / "gpu_check.sh", tmp_path / "out"],
            env=os.environ | found,
            capture_output=True,
            text=True,
            timeout=60,
        )
        calls = tmp_path / "calls"
        return done, calls.read_text() if calls.exists() else ""

    return run


def test_without_a_gpu_it_says_what_was_not_run(check):
    done, calls = check(driver=False)
    assert done.returncode == 1
    assert "no GPU cuda:0: gpus: no CUDA driver: cannot load libcuda.so.1" in done.stderr
    assert "not run: tests/gpu, compute-sanitizer, bench.gpu, festina profile" in done.stderr
    assert "bench" not in calls


def test_with_a_gpu_all_of_it_runs(check):
    done, calls = check()
    assert (done.returncode, done.stderr) == (0, "")
    assert "failed: nothing" in done.stdout
    for tool in ("memcheck", "racecheck", "initcheck"):
        assert f"sanitizer --tool {tool} " in calls
    assert "python -m bench.gpu --device 0" in calls
    assert "profile --device cuda:0 --model llama-3b --quick" in calls


def test_what_fails_is_named_and_the_rest_still_runs(check):
    done, calls = check(bench=3)
    assert done.returncode == 1
    assert "bench: " in done.stdout
    assert "failed: bench\n" in done.stdout
    assert "profile --device" in calls


def test_what_is_missing_is_named(check):
    done, _ = check(torch=1, kernels=1, sanitizer=False)
    assert done.returncode == 1
    for line in (
        "not run: kernels (festina was built without its CUDA kernels: install it where nvcc",
        "not run: tests of the engine (PyTorch is not installed: pip install 'festina[gpu]')",
        "not run: memcheck (no compute-sanitizer at /nowhere)",
        "not run: bench (PyTorch is not installed: pip install 'festina[gpu]')",
    ):
        assert line in done.stdout
