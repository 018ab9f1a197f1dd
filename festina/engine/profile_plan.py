"""What a profile measures: the points of its grid, and how long they will take. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from festina.engine.base import BLOCK_TOKENS

IDLE_S = 6.0
"""An idle reading with a measured counter: the work before fades, then a window of its own."""

POINT_EXTRA_S = 0.6
"""Beside its window a point waits for the counter to move and, the first time, for a graph."""


@dataclass(frozen=True, slots=True)
class Point:
    """One row of a profile.

    Attributes:
        phase: "prefill", "decode" or "idle".
        sms: SMs; 0 for idle.
        clock_mhz: Clock asked for.
        tokens: New tokens, or sequences.
        context: Tokens cached before, per sequence.
    """

    phase: str
    sms: int
    clock_mhz: int
    tokens: int
    context: int

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV cache that its step needs, in whole blocks."""
        sequences, new = (self.tokens, 1) if self.phase == "decode" else (1, self.tokens)
        return sequences * -(-(self.context + new) // BLOCK_TOKENS) * BLOCK_TOKENS

    @property
    def sequence_tokens(self) -> int:
        """Tokens of its longest sequence."""
        return self.context + (1 if self.phase == "decode" else self.tokens)


@dataclass(frozen=True, slots=True)
class ClockSweep:
    """Some work measured at more clocks, on the whole device alone: what a clock does to it all.

    Attributes:
        clocks_mhz: Besides those of the plan.
        prefill_tokens: With nothing cached.
        decode_batches: Each with `decode_context`.
        decode_context: Tokens per sequence.
    """

    clocks_mhz: tuple[int, ...]
    prefill_tokens: tuple[int, ...]
    decode_batches: tuple[int, ...]
    decode_context: int


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """What to measure.

    Attributes:
        prefill_tokens: New tokens of a prefill step.
        prefill_cached: Tokens cached before it.
        decode_batches: Sequences of a decode step.
        decode_contexts: Tokens cached per sequence.
        repeats: Steps measured per point, at least.
        warm_up: Steps thrown away before them, at least.
        point_s: Least length of a point's window, where a counter measures its energy.
        settle_s: Of steps thrown away before it, where a counter measures its energy.
        kv_tokens_max: Points that need more KV cache are not measured; 0 measures them all.
        sms: Rungs to measure; empty: all.
        clocks_mhz: Clocks at which all is measured; empty: all that can be set.
        sweep: Some work at more clocks.
        seed: Seed of the token ids.
    """

    prefill_tokens: tuple[int, ...] = (1, 16, 64, 128, 256)
    prefill_cached: tuple[int, ...] = (0, 512, 1792)
    decode_batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    decode_contexts: tuple[int, ...] = (16, 512, 2016)
    repeats: int = 5
    warm_up: int = 1
    point_s: float = 0.0
    settle_s: float = 0.0
    kv_tokens_max: int = 0
    sms: tuple[int, ...] = ()
    clocks_mhz: tuple[int, ...] = ()
    sweep: ClockSweep | None = None
    seed: int = 0

    @property
    def sequence_blocks(self) -> int:
        """KV blocks of the longest sequence."""
        prefill = max(self.prefill_tokens) + max(self.prefill_cached)
        return -(-max(prefill, max(self.decode_contexts) + 1) // BLOCK_TOKENS)

    @property
    def kv_tokens(self) -> int:
        """KV pool that the plan needs."""
        return max(point.kv_tokens for point in _works(self, 0, 0))

    def points(self, sms: Iterable[int], clocks_mhz: Iterable[int]) -> tuple[Point, ...]:
        """All points in order: per clock idle first, then rungs from the largest.

        Args:
            sms: Rungs of the device.
            clocks_mhz: Clocks at which all is to be measured, in that order.
        """
        rungs = sorted({one for one in sms if not self.sms or one in self.sms}, reverse=True)
        found: list[Point] = []
        for clock_mhz in clocks_mhz:
            found.append(Point("idle", 0, clock_mhz, 0, 0))
            for rung in rungs:
                found += _works(self, rung, clock_mhz)
        if self.sweep is not None:
            found += _sweep_points(self.sweep, rungs[0], self.kv_tokens_max)
        return tuple(found)


def expected_s(
    plan: ProfilePlan, points: Iterable[Point], step_ms: Callable[[Point], float]
) -> float:
    """How long measuring takes where a counter measures energy, without loading the model.

    Args:
        plan: The plan.
        points: Of the plan.
        step_ms: Expected duration of a step of a point.
    """
    seconds = 0.0
    for point in points:
        if point.phase == "idle":
            seconds += IDLE_S
            continue
        step_s = step_ms(point) / 1e3
        window_s = max(plan.point_s + step_s, plan.repeats * step_s)
        seconds += max(plan.settle_s, plan.warm_up * step_s) + window_s + POINT_EXTRA_S
    return seconds


def _works(plan: ProfilePlan, sms: int, clock_mhz: int) -> Iterator[Point]:
    grids = (
        ("prefill", plan.prefill_tokens, plan.prefill_cached),
        ("decode", plan.decode_batches, plan.decode_contexts),
    )
    for phase, tokens, contexts in grids:
        for one, context in product(tokens, contexts):
            point = Point(phase, sms, clock_mhz, one, context)
            if _fits(point, plan.kv_tokens_max):
                yield point


def _sweep_points(sweep: ClockSweep, sms: int, kv_tokens_max: int) -> Iterator[Point]:
    for clock_mhz in sweep.clocks_mhz:
        yield Point("idle", 0, clock_mhz, 0, 0)
        works = [Point("prefill", sms, clock_mhz, one, 0) for one in sweep.prefill_tokens]
        works += [
            Point("decode", sms, clock_mhz, one, sweep.decode_context)
            for one in sweep.decode_batches
        ]
        yield from (point for point in works if _fits(point, kv_tokens_max))


def _fits(point: Point, kv_tokens_max: int) -> bool:
    return kv_tokens_max == 0 or point.kv_tokens <= kv_tokens_max
