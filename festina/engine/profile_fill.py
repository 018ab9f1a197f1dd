"""Fills what was not measured of a GPU's profile by DESIGN 4.5, scaled to what was; marked so.

Physics gives the shape and measurements the height. A point's factor is measured / physics at the
clock at which it really ran. Between measured rungs factors are interpolated over log(SMs); a point
that was not measured, because its KV cache does not fit, takes those of the nearest one that was.
Clocks at or above the one at which a step really ran (its power cap) change nothing; below it,
physics says what changes, corrected by the clocks of the sweep.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from festina.device import physics
from festina.device.modelled_profile import LATENCY_ERROR
from festina.engine.gpu_plan import point_work
from festina.engine.measurements import Measurement
from festina.engine.profile_plan import Point, ProfilePlan
from festina.profile_format import ProfileRow
from festina.types import Phase, Provenance

Figures = NDArray[np.float64]
"""Latency in ms and power above idle in W, each over the clocks: (2, clocks)."""

_Work = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The axes of the profile.

    Attributes:
        sms: Rungs, ascending.
        clocks_mhz: Clocks, ascending.
    """

    sms: tuple[int, ...]
    clocks_mhz: tuple[int, ...]


class ProfileFill:
    """Rows of a whole profile from some of its points. All measured ones are kept as they are.

    Args:
        gpu: The kind of GPU.
        shape: Sizes of the model.
        measured: What was measured, with all rungs at one clock, the highest.
        wanted: The axes of the profile; they hold all that was measured.
    """

    def __init__(
        self,
        gpu: physics.GpuSpec,
        shape: physics.WorkShape,
        measured: Iterable[Measurement],
        wanted: Wanted,
    ) -> None:
        self._gpu = gpu
        self._shape = shape
        self._wanted = wanted
        self._clocks = np.array(wanted.clocks_mhz, np.float64)
        self._measured = {one.point: one for one in measured}
        self._top_mhz = max(point.clock_mhz for point in self._measured)
        self._anchors: dict[_Work, dict[int, Measurement]] = {}
        for point, one in self._measured.items():
            if point.phase != "idle" and point.clock_mhz == self._top_mhz:
                work = (point.phase, point.tokens, point.context)
                self._anchors.setdefault(work, {})[point.sms] = one
        self._idle_w = self._fill_idle()
        self._clock_factors = {phase: self._fit_clocks(phase) for phase in ("prefill", "decode")}

    def rows(self, plan: ProfilePlan) -> Iterator[ProfileRow]:
        """The full grid of the plan's work over the wanted rungs and clocks, and idle power."""
        grids = (
            ("prefill", plan.prefill_tokens, plan.prefill_cached),
            ("decode", plan.decode_batches, plan.decode_contexts),
        )
        for phase, tokens, contexts in grids:
            for work, sms in product(product((phase,), tokens, contexts), self._wanted.sms):
                yield from self._line(work, sms)
        for clock_mhz, power_w in zip(self._wanted.clocks_mhz, self._idle_w, strict=True):
            known = self._measured.get(Point("idle", 0, clock_mhz, 0, 0))
            yield known.row() if known else _idle_row(clock_mhz, float(power_w))

    def _line(self, work: _Work, sms: int) -> Iterator[ProfileRow]:
        """One work on one rung at every clock."""
        near = self._nearest(work)
        figures = self._model(work, near, sms) * self._clock_factors[work[0]]
        spread = max(one.spread for one in near.values()) + LATENCY_ERROR[Phase[work[0].upper()]]
        amounts = point_work(self._shape, Point(work[0], sms, 0, *work[1:]))
        flops, moved = float(amounts.flops), float(amounts.bytes_moved)
        for clock_mhz, (latency_ms, power_w) in zip(
            self._wanted.clocks_mhz, figures.T, strict=True
        ):
            known = self._measured.get(Point(work[0], sms, clock_mhz, *work[1:]))
            if known is not None:
                yield known.row()
                continue
            seconds = float(latency_ms) / 1e3
            yield ProfileRow(
                phase=work[0],
                sms=sms,
                clock_mhz=clock_mhz,
                tokens=work[1],
                context=work[2],
                latency_ms=float(latency_ms),
                power_w=float(power_w),
                flops_per_s=flops / seconds,
                bytes_per_s=moved / seconds,
                spread=spread,
                samples=0,
                source=Provenance.MODELLED.value,
            )

    def _model(self, work: _Work, near: Mapping[int, Measurement], sms: int) -> Figures:
        """Figures at every clock, without what the sweep has to say."""
        factors, ran_mhz = self._factors(near, sms)
        point = Point(work[0], sms, 0, *work[1:])
        below = np.minimum(self._clocks, ran_mhz)
        figures = self._physics(point, below) * factors[:, None]
        # A lock above the clock that its steps reach changes nothing but what counts as idle.
        reached = np.interp(ran_mhz, self._clocks, self._idle_w)
        figures[1] += np.where(self._clocks > ran_mhz, reached - self._idle_w, 0.0)
        return np.maximum(figures, [[1e-6], [0.0]])

    def _factors(self, near: Mapping[int, Measurement], sms: int) -> tuple[Figures, float]:
        """Measured over physics (2,) at a rung, and the clock that its steps reach."""
        rungs = sorted(near)
        places = np.log(rungs)
        pairs = [self._factor(near[rung]) for rung in rungs]
        found = [
            math.exp(np.interp(math.log(sms), places, [math.log(pair[side]) for pair in pairs]))
            for side in (0, 1)
        ]
        reached = np.interp(math.log(sms), places, [self._ran_mhz(near[rung]) for rung in rungs])
        return np.array(found), float(reached)

    def _factor(self, one: Measurement) -> tuple[float, float]:
        ran_mhz = self._ran_mhz(one)
        latency_ms, power_w = self._physics(one.point, np.array([ran_mhz]))[:, 0]
        idle_w = np.interp([one.clock_mhz, ran_mhz], self._clocks, self._idle_w)
        above_w = max(one.power_w + float(idle_w[0] - idle_w[1]), 1e-3)
        return one.latency_ms / float(latency_ms), above_w / float(power_w)

    def _ran_mhz(self, one: Measurement) -> float:
        """The clock at which its steps really ran; what was asked for where nobody looked."""
        return float(min(one.observed_mhz or one.clock_mhz, one.clock_mhz))

    def _physics(self, point: Point, clocks_mhz: NDArray[np.float64]) -> Figures:
        """What physics says of a point at clocks that its power cap allows."""
        work = point_work(self._shape, point)
        sms = min(point.sms, self._gpu.sms_total)
        clocks = np.clip(clocks_mhz, 1.0, self._gpu.clock_max_mhz)
        latency_ms = physics.latency_ms(self._gpu, work, sms, clocks)
        seconds = latency_ms / 1e3
        rates = work.flops / seconds, work.bytes_moved / seconds
        return np.array([latency_ms, physics.dynamic_w(self._gpu, *rates, clocks)])

    def _nearest(self, work: _Work) -> Mapping[int, Measurement]:
        """What was measured of this work, or of the one that is most like it."""

        def distance(other: _Work) -> float:
            tokens = abs(math.log(work[1] / other[1]))
            return tokens + abs(math.log((work[2] + 1) / (other[2] + 1)))

        alike = (other for other in self._anchors if other[0] == work[0])
        return self._anchors[min(alike, key=distance)]

    def _fill_idle(self) -> NDArray[np.float64]:
        """Idle power over the clocks: physics' slope through what was measured."""
        idle = sorted(
            (one.clock_mhz, one.power_w) for one in self._measured.values() if one.phase == "idle"
        )
        known_mhz, known_w = (np.array(column, np.float64) for column in zip(*idle, strict=True))
        offsets = known_w - physics.idle_w(self._gpu, known_mhz)
        filled = physics.idle_w(self._gpu, self._clocks)
        return np.maximum(filled + np.interp(self._clocks, known_mhz, offsets), 0.0)

    def _fit_clocks(self, phase: str) -> Figures:
        """What the sweep corrects at every clock, (2, clocks): 1 at the top and without a sweep."""
        found: dict[int, list[Figures]] = {}
        for point, one in self._measured.items():
            if point.phase != phase or point.clock_mhz == self._top_mhz:
                continue
            work = (point.phase, point.tokens, point.context)
            modelled = self._model(work, self._nearest(work), point.sms)
            at = self._wanted.clocks_mhz.index(point.clock_mhz)
            figures = np.array([one.latency_ms, max(one.power_w, 1e-3)])
            found.setdefault(point.clock_mhz, []).append(
                figures / np.maximum(modelled[:, at], 1e-3)
            )
        knots = sorted(found)
        means = [np.log(found[knot]).mean(axis=0) for knot in knots]
        return np.exp(
            [
                np.interp(self._clocks, [*knots, self._top_mhz], [*(m[side] for m in means), 0.0])
                for side in (0, 1)
            ]
        )


def _idle_row(clock_mhz: int, power_w: float) -> ProfileRow:
    source = Provenance.MODELLED.value
    return ProfileRow("idle", 0, clock_mhz, 0, 0, 0.0, power_w, 0.0, 0.0, 0.0, 0, source)
