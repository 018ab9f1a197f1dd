"""Makes festina/_core.pyi from the built module: `make stubs` after a change of csrc/bindings."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).resolve().parents[1] / "festina" / "_core.pyi"


def generate() -> str:
    """The stub of festina._core as it is built now, formatted as festina's own files are."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "festina" / "_core.pyi"
        _run("pybind11_stubgen", "festina._core", "--exit-code", "--output-dir", folder)
        text = made.read_text("utf-8")
    as_stub = ("-", "--stdin-filename", STUB)
    text = _run("ruff", "check", "--select", "I", "--fix", "--quiet", *as_stub, text=text)
    return _run("ruff", "format", "--quiet", *as_stub, text=text)


def _run(module: str, *arguments: str | Path, text: str = "") -> str:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else STUB
    out.write_text(generate(), "utf-8")
