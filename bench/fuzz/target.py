"""What is fuzzed, and how a round of inputs runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from bench.fuzz.mutators import mutate

from festina.errors import FestinaError

ROUND = 256
"""Inputs that share one state."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that takes inputs.

    Attributes:
        corpus: Valid inputs.
        start: Fresh state; gives the function that takes an input. It raises a `FestinaError` to
            refuse one; anything else that it raises is a crash.
        intact: Of 16 inputs, how many stay valid: they lead into the states that damage then meets.
        damage: Makes an input of one of the corpus.
    """

    corpus: Sequence[bytes]
    start: Callable[[], Callable[[bytes], object]]
    intact: int = 1
    damage: Callable[[bytes, Sequence[bytes], Random, int], bytes] = mutate


@dataclass(slots=True)
class Tally:
    """How inputs ended, and how many were begun."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0


def run_round(target: Target, seed: int, number: int, tally: Tally) -> None:
    """Round `number`: always the same inputs."""
    rng = Random((seed << 32) | number)
    take = target.start()
    corpus = target.corpus
    for _ in range(ROUND):
        one = corpus[rng.getrandbits(20) % len(corpus)]
        data = target.damage(one, corpus, rng, target.intact)
        tally.inputs += 1
        try:
            take(data)
        except FestinaError:
            tally.refused += 1
        else:
            tally.accepted += 1
