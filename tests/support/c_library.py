"""Shared libraries that tests pretend are NVIDIA's."""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def build_library(source: Path, library: Path, *defines: str) -> Path:
    """Compile `source` as `library`; skips the test where there is no C compiler.

    Each library is a file of its own, so that what a test does to one does not show in another.
    """
    library.write_bytes(_compiled(source, defines))
    return library


@functools.cache
def _compiled(source: Path, defines: tuple[str, ...]) -> bytes:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build a pretended library with")
    flags = [f"-D{define}" for define in defines]
    command = [compiler, "-std=c11", "-Wall", "-Werror", "-shared", "-fPIC", *flags]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "library.so"
        subprocess.run([*command, "-o", str(made), str(source)], check=True)
        return made.read_bytes()
