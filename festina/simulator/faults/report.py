"""What many seeds came to."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from festina.errors import SimulationError
from festina.simulator.faults.cluster import SeedResult


class BrokenPromise(Struct, frozen=True):
    """A promise that a seed did not keep.

    Attributes:
        seed: The seed.
        promise: Number in DESIGN section 5.
        at_s: Virtual time.
        what: One sentence.
        replay: The command that shows it again.
    """

    seed: int
    promise: int
    at_s: float
    what: str
    replay: str


class FaultReport(Struct, frozen=True):
    """All seeds together.

    Attributes:
        digest: SHA-256 of all digests.
        broken: Promises that were not kept.
        faults: How often each kind of fault was injected.
        ends: How often requests ended in each way: "complete" or the code of an error.
        peaks: Greatest use of each bounded thing, as a share of its bound.
        simulated_s: Virtual seconds.
        repeated: How many seeds ran a second time in another process.
        results: Seed by seed.
    """

    digest: str
    broken: tuple[BrokenPromise, ...]
    faults: dict[str, int]
    ends: dict[str, int]
    peaks: dict[str, float]
    simulated_s: float
    repeated: int
    results: tuple[SeedResult, ...]

    def lines(self) -> Iterator[str]:
        """One line per seed that broke a promise: its first breach, and how to see it again."""
        seen: set[int] = set()
        for one in self.broken:
            if one.seed not in seen:
                seen.add(one.seed)
                yield f"seed {one.seed}, {one.at_s:.3f} s: promise {one.promise}: {one.what}"
                yield f"  {one.replay}"


def report_of(results: Sequence[SeedResult], repeated: Iterable[SeedResult] = ()) -> FaultReport:
    """Sums up; a seed that came out otherwise the second time breaks promise 6."""
    faults, ends, peaks = Counter[str](), Counter[str](), dict[str, float]()
    broken = [_broken(one.seed, b.promise, b.at, b.what) for one in results for b in one.broken]
    for one in results:
        faults.update(one.faults)
        ends.update(one.ends)
        for what, share in one.peaks.items():
            peaks[what] = max(peaks.get(what, 0.0), share)
    digests = {one.seed: one.digest for one in results}
    again = list(repeated)
    for one in again:
        if digests.get(one.seed) != one.digest:
            what = f"digest {one.digest} in another process, {digests.get(one.seed)} in this one"
            broken.append(_broken(one.seed, 6, one.simulated_s, what))
    return FaultReport(
        digest=hashlib.sha256("".join(digests.values()).encode()).hexdigest(),
        broken=tuple(broken),
        faults=dict(sorted(faults.items())),
        ends=dict(sorted(ends.items())),
        peaks=dict(sorted(peaks.items())),
        simulated_s=sum(one.simulated_s for one in results),
        repeated=len(again),
        results=tuple(results),
    )


def to_json(report: FaultReport) -> bytes:
    """For programs."""
    return msgspec.json.encode(report)


def from_json(data: bytes) -> FaultReport:
    """What `to_json` gave.

    Raises:
        SimulationError: It is no such report.
    """
    try:
        return msgspec.json.decode(data, type=FaultReport)
    except msgspec.DecodeError as error:
        raise SimulationError(f"no report of faults: {error}", field="json") from error


def _broken(seed: int, promise: int, at_s: float, what: str) -> BrokenPromise:
    replay = f"festina simulate-faults --first {seed} --seeds 1"
    return BrokenPromise(seed, promise, at_s, what, replay)
