"""`festina simulate-faults`: what it prints and how it exits."""

import json

import pytest
from typer.testing import CliRunner

from festina.cli import simulate_faults
from festina.cli.main import app
from festina.simulator.faults.cluster import SeedResult
from festina.simulator.faults.journal import Broken


def result(seed: int, *broken: Broken) -> SeedResult:
    return SeedResult(
        seed, f"{seed:064x}", broken, {"lost": 3}, {"complete": 5}, {"queue": 0.5}, 9.0
    )


@pytest.fixture
def breaks_two(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (Broken(1, 2.5, "token 1 where 0 was due"), Broken(4, 3.0, "no end"))

    def simulate(seed, profiles):
        return result(seed, *(broken if seed == 2 else ()))

    monkeypatch.setattr(simulate_faults, "simulate_seed", simulate)


def run(*words: str):
    return CliRunner().invoke(app, ["simulate-faults", *words, "--again", "0"])


def test_kept_promises_exit_with_0_and_tell_what_was_injected():
    done = run("--first", "3", "--seeds", "1")
    assert done.exit_code == 0, done.output
    assert "promises 1, 2 and 4 kept" in done.stdout
    assert "scheduler crashed" in done.stdout
    assert "complete" in done.stdout


def test_a_broken_promise_exits_with_1_and_one_line_with_its_replay(breaks_two: None):
    done = run("--first", "1", "--seeds", "3")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[:2] == [
        "seed 2, 2.500 s: promise 1: token 1 where 0 was due",
        "  festina simulate-faults --first 2 --seeds 1",
    ]
    assert "promises broken by 1 of them" in done.stdout


def test_json_tells_every_broken_promise(breaks_two: None):
    done = run("--seeds", "3", "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert [(one["seed"], one["promise"]) for one in report["broken"]] == [(2, 1), (2, 4)]
    assert report["faults"] == {"lost": 9}


def test_seeds_that_are_shared_by_processes_come_out_alike():
    alone = run("--seeds", "2", "--json")
    shared = run("--seeds", "2", "--json", "--jobs", "2")
    assert shared.exit_code == 0, shared.output
    assert json.loads(shared.stdout)["results"] == json.loads(alone.stdout)["results"]
