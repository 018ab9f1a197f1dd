"""`python -m bench.gpu` where there is no GPU, and its serving bench on simulated ones."""

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from festina.config import Config
from gpu import serving

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "tests" / "fixtures" / "bench-gpu-test-data.json"


def bench(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "bench.gpu", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_without_a_gpu_it_says_so_in_one_line_and_writes_nothing(tmp_path):
    (tmp_path / "libcuda.so.1").write_text("no library")
    done = bench("--out", str(tmp_path / "out"), LD_LIBRARY_PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "bench.gpu: gpus: no CUDA driver: cannot load libcuda.so.1\n"
    assert not (tmp_path / "out").exists()


def test_a_file_is_drawn_and_tabulated_again_without_a_gpu(tmp_path):
    file = shutil.copy(FIXTURE, tmp_path / "r.json")
    done = bench("--render", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(tmp_path / "r.svg"), str(tmp_path / "r.md")]
    ElementTree.parse(tmp_path / "r.svg")
    assert "test data" in (tmp_path / "r.md").read_text()


class Counter:
    """A board that has used 100 J more at each look."""

    joules = 0.0

    def energy_j(self):
        self.joules += 100.0
        return self.joules


def test_the_same_requests_are_served_by_a_cluster_of_one_gpu():
    config = serving.config_of("sim:1", flat_out=True)
    assert config.agent != Config().agent
    served = serving.serve(config, Counter(), seconds=3.0)
    rows = serving.requests_of(3.0)
    assert served.energy_j == 100.0
    assert served.tokens == sum(row.output_tokens for row in rows)
    assert 0.0 <= served.attainment <= 1.0
