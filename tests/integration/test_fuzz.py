"""The fuzzer: its targets stand a short run, a round comes back, and what crashes is told."""

import subprocess
import sys
from random import Random

import pytest
from bench.fuzz import gateway, part
from bench.fuzz.__main__ import run_child, table
from bench.fuzz.mutators import mutate
from bench.fuzz.target import ROUND, Tally, Target, run_round

from festina.errors import ProtocolError

FAST = frozenset({"wire", "hosted", "blocks"})


@pytest.mark.parametrize("name", part.TARGETS)
def test_damaged_input_is_taken_or_refused(name: str):
    rounds = 12 if name in FAST else 2
    found = run_child(name, 7, 0, rounds)
    assert (found.crash, found.hang) == ("", False)
    assert found.inputs == rounds * ROUND
    assert found.accepted > 0
    assert found.refused > 0


def test_a_round_comes_back_from_its_number():
    def inputs(number: int) -> list[bytes]:
        seen: list[bytes] = []
        run_round(Target([b"abcdef", b"ghij"], lambda: seen.append), 1, number, Tally())
        return seen

    assert inputs(3) == inputs(3)
    assert inputs(3) != inputs(4)
    assert len(inputs(3)) == ROUND


def test_only_a_typed_error_refuses():
    def refuse(_: bytes) -> None:
        raise ProtocolError("no")

    def crash(_: bytes) -> None:
        raise KeyError("a bug")

    tally = Tally()
    run_round(Target([b"a"], lambda: refuse), 1, 0, tally)
    assert (tally.accepted, tally.refused) == (0, ROUND)
    with pytest.raises(KeyError):
        run_round(Target([b"a"], lambda: crash), 1, 0, Tally())


def test_a_child_that_dies_is_a_crash_with_its_round():
    found = run_child("no such target", 1, 5, 1)
    assert (found.round, found.inputs) == (5, 0)
    assert "KeyError" in found.crash
    assert "| 1 | 0 |" in table([found], ["no such target"])


def test_damage_leaves_what_is_intact():
    assert mutate(b"abc", [b"abc"], Random(0), 16) == b"abc"


@pytest.mark.parametrize("body", [b"{", b"[" * 60_000, b"7", b""])
def test_a_body_that_is_no_json_object_is_damaged_too(body: bytes):
    data = b"chat\n\n" + body
    made = {gateway.damage(data, [data], Random(seed), 0) for seed in range(50)}
    assert len(made) > 10


HANGS = """
from bench.fuzz import part
from bench.fuzz.target import Target

def spin(_):
    while True:
        pass

part.HANG_S, part.NATIVE_HANG_S = 0.2, 20.0
part.FIRST_LOOK_S = 0.1
part.TARGETS["spin"] = (lambda _: Target([b"a"], lambda: spin), 1.0)
found = part.run_part("spin", 1, 0, 1, None)
print(found.hang, found.inputs, found.round)
"""


def test_an_input_that_does_not_end_is_a_hang():
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout.split() == ["True", "1", "0"]
