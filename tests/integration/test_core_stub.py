"""The stub of the native module is the one that the module gives."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from festina import _core

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(
    importlib.util.find_spec("pybind11_stubgen") is None, reason="pybind11-stubgen is not installed"
)
@pytest.mark.skipif(
    not _core.build_info()["cuda"], reason="the stub is made from a build with the CUDA parts"
)
def test_the_stub_is_what_make_stubs_gives(tmp_path: Path) -> None:
    made = tmp_path / "_core.pyi"
    command = [sys.executable, str(ROOT / "tools" / "stubs.py"), str(made)]
    subprocess.run(command, check=True)
    assert made.read_text() == (ROOT / "festina" / "_core.pyi").read_text(), "run `make stubs`"
