"""What happened in a run: a digest of all of it, counts, and broken promises."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

BROKEN_MAX = 20
"""Broken promises told of one run; more of them say no more."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that was not kept.

    Attributes:
        promise: Its number in DESIGN section 5.
        at: Virtual seconds.
        what: One sentence.
    """

    promise: int
    at: float
    what: str


class Journal:
    """Takes notes of one run.

    Attributes:
        faults: How often each kind of fault was injected.
        ends: How often requests ended in each way.
        broken: Promises that were not kept, at most `BROKEN_MAX`.
        did: How often a consolidator did what.
        peaks: Greatest use of each bounded thing, as a share of its bound.
    """

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.did: Counter[str] = Counter()
        self.broken: list[Broken] = []
        self.peaks: dict[str, float] = {}
        self._hash = hashlib.sha256()

    def note(self, at: float, what: str, frame: bytes = b"") -> None:
        """Something happened; it becomes part of the digest."""
        self._hash.update(b"%r %s %d " % (at, what.encode(), len(frame)))
        self._hash.update(frame)

    def fault(self, at: float, kind: str, where: str) -> None:
        """A fault was injected."""
        self.faults[kind] += 1
        self.note(at, f"{kind} {where}")

    def breach(self, promise: int, at: float, what: str) -> None:
        """A promise was not kept."""
        if len(self.broken) < BROKEN_MAX:
            self.broken.append(Broken(promise, at, what))

    def use(self, what: str, amount: int, bound: int, at: float, where: str) -> None:
        """`amount` of something of which `bound` are allowed are in use (promise 4)."""
        share = amount / bound
        if share > self.peaks.get(what, 0.0):
            self.peaks[what] = share
        if amount > bound:
            self.breach(4, at, f"{amount} {what} at {where}, of at most {bound}")

    def digest(self) -> str:
        """SHA-256 of everything noted, hexadecimal."""
        return self._hash.hexdigest()
