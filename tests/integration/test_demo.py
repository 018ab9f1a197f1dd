"""The demo, without weights: the same path on simulated GPUs."""

import json
import subprocess
import sys

FESTINA = [sys.executable, "-c", "from festina.cli.main import main; main()"]


def test_the_demo_serves_both_deployments_and_keeps_its_promise():
    command = [*FESTINA, "demo", "--gpus", "sim:2", "--bursts", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["holds"]
    assert [stats["model"] for stats in answer["deployments"]] == ["interactive", "relaxed"]
    for stats in answer["deployments"]:
        assert stats["completed"] == stats["submitted"] == 5
        assert stats["energy_j"]["modelled"] > 0
    assert "the same weights" in done.stderr
    assert "interactive: " in done.stderr
