"""What a soak came to, as Markdown, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from bench.soak.phases import Phase
from bench.soak.watching import Held, Watcher

GROWTH_MAX = 0.05
LEFT_OVER_MAX = 4
"""Descriptors more than before, of a process that rests: connections that are kept alive."""
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Soaked:
    """All that was seen.

    Attributes:
        most: The closed loop.
        steady: The long phase.
        too_much: The overload.
        watcher: Samples of the long phase.
        before: What processes held at rest before it.
        after: What they held at rest after the overload.
    """

    most: Phase
    steady: Phase
    too_much: Phase
    watcher: Watcher
    before: Mapping[str, Held]
    after: Mapping[str, Held]


def faults(soaked: Soaked, dead: Sequence[str], shared: Set[str], processes_left: int) -> list[str]:
    """What is wrong, a line each."""
    found = [f"{name} died" for name in dead]
    for name in soaked.watcher.samples:
        share = soaked.watcher.growth(name).share
        if share >= GROWTH_MAX:
            found.append(f"{name} grew by {share:.1%}")
        more = soaked.after[name].descriptors - soaked.before[name].descriptors
        if more > LEFT_OVER_MAX:
            found.append(f"{name} holds {more} descriptors more than before")
    for phase, what in ((soaked.steady, "steady"), (soaked.too_much, "overload")):
        found += [f"{what}: {count} x {end}" for end, count in phase.ends.wrong.items()]
    if not soaked.too_much.ends.counts["refused"]:
        found.append("overload: nothing was refused")
    if shared:
        found.append(f"shared memory is left: {sorted(shared)}")
    if processes_left:
        found.append(f"{processes_left} processes are left")
    return found


def page(soaked: Soaked, wrong: Sequence[str]) -> str:
    """The tables."""
    lines = [
        "| phase | seconds | sent/s | complete/s | in the cluster | how requests ended | slowest |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        _phase("closed loop", soaked.most),
        _phase("steady", soaked.steady),
        _phase("overload", soaked.too_much),
        "",
        "| process | RSS, MiB, first | last | growth | peak | descriptors at rest | threads |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_process(soaked, name) for name in soaked.watcher.samples),
        "",
        *(wrong or ["Nothing grew by 5 % or more, nothing is left over, no request was let down."]),
    ]
    return "\n".join(lines) + "\n"


def _phase(name: str, phase: Phase) -> str:
    ends = ", ".join(f"{count:,} {end}" for end, count in sorted(phase.ends.counts.items()))
    sent = f"{phase.rate_hz:.1f}" if phase.rate_hz else "-"
    inside = f"{phase.inside:.0f}" if phase.inside else "-"
    return (
        f"| {name} | {phase.seconds:,.0f} | {sent} | {phase.complete_hz:.1f} | {inside} | {ends} "
        f"| {phase.ends.slowest_s:.1f} s |"
    )


def _process(soaked: Soaked, name: str) -> str:
    growth = soaked.watcher.growth(name)
    before, after = soaked.before[name], soaked.after[name]
    return (
        f"| {name} | {growth.first_bytes / MIB:.1f} | {growth.last_bytes / MIB:.1f} "
        f"| {growth.share:+.1%} | {growth.peak_bytes / MIB:.1f} "
        f"| {before.descriptors} → {after.descriptors} | {before.threads} → {after.threads} |"
    )
