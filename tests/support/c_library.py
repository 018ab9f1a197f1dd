"""Shared libraries that tests pretend are NVIDIA's."""

import shutil
import subprocess
from pathlib import Path

import pytest


def build_library(source: Path, library: Path, *defines: str) -> Path:
    """Compile `source` as `library`; skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build a pretended library with")
    flags = [f"-D{define}" for define in defines]
    command = [compiler, "-std=c11", "-Wall", "-Werror", "-shared", "-fPIC", *flags]
    subprocess.run([*command, "-o", str(library), str(source)], check=True)
    return library
