"""Measures a resident model on a device: latency and power of prefill and decode steps.

The profiler drives any `Engine` on any `Device` and gives the points of a plan as measurements.
Token ids are random, since neither caches nor multipliers treat zeros as they treat text. It needs
the device for itself.

Where a counter measures energy, a point's steps are repeated until its window is long enough; the
power of a step is then (mean power − idle power at that clock) / share of the window that was
steps. Elsewhere the device models the energy of each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from festina.device.base import Device
from festina.device.energy_window import EnergyWindow
from festina.engine.base import BLOCK_TOKENS, Batch, Engine, LoadedModel, StepResult
from festina.engine.idle_power import COUNTER_STILL_S, counter_still, measure_idle
from festina.engine.measurements import Measurement
from festina.engine.profile_plan import Point, ProfilePlan
from festina.engine.synthetic import fill_cache, step_of
from festina.errors import BadRequestError, DeviceError
from festina.types import Provenance

_CLOCK_POLL_S = 0.02
_CLOCK_POLLS_MAX = 250
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution


@dataclass(slots=True)
class _Series:
    """Steps of one point."""

    results: list[StepResult] = field(default_factory=list)
    clocks_mhz: list[int] = field(default_factory=list)
    modelled_j: float = 0.0
    window: EnergyWindow = field(default_factory=EnergyWindow)

    @property
    def latencies_ms(self) -> NDArray[np.float64]:
        return np.array([result.latency_ms for result in self.results])


class Profiler:
    """Measures one resident model. Not thread-safe; nothing else may use engine or device.

    Args:
        engine: Runs the steps.
        loaded: What `engine.load` gave, with a KV pool of at least `plan.kv_tokens`.
        device: Where the engine runs.
        plan: What to measure.
        clock: Monotonic seconds, as the device knows them.
        sleep: Waits for so many seconds.

    Attributes:
        points: What is measured, in this order.

    Raises:
        BadRequestError: The plan does not fit the model's context or its KV pool.
    """

    def __init__(
        self,
        engine: Engine,
        loaded: LoadedModel,
        device: Device,
        plan: ProfilePlan,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._engine = engine
        self._loaded = loaded
        self._device = device
        self._plan = plan
        self._clock = clock
        self._sleep = sleep
        self._rng = np.random.default_rng(plan.seed)
        self._partitions = {one.sms: one for one in reversed(device.partitions) if one.side == 0}
        clocks_mhz = plan.clocks_mhz or device.clocks_mhz or (device.run_clock_mhz(),)
        self.points = plan.points(self._partitions, clocks_mhz)
        self._asked_mhz: int | None = None
        _require_room(loaded, self.points)

    def measurements(
        self, kept: Mapping[Point, Measurement] | None = None
    ) -> Iterator[Measurement]:
        """Every point that is not kept from an earlier run, as it is measured.

        Raises:
            EngineError: A step failed.
            DeviceError: A clock did not come to hold, or the energy counter stands still.
        """
        kept = kept or {}
        left = [point for point in self.points if point not in kept]
        if any(point.phase != "idle" for point in left):
            self._fill()
        idle = {one.clock_mhz: one for one in kept.values() if one.phase == "idle"}
        for point in left:
            self._set_clock(point.clock_mhz)
            if point.phase == "idle":
                idle[point.clock_mhz] = self._idle(point)
                yield idle[point.clock_mhz]
            else:
                yield self._measure(point, idle[point.clock_mhz].power_w)

    def _fill(self) -> None:
        """Put random content into all blocks that the points use."""
        longest = max(point.sequence_tokens for point in self.points)
        most = max(point.kv_tokens for point in self.points)
        whole = self._partitions[max(self._partitions)]
        fill_cache(self._engine, self._loaded, whole, (longest, most), self._rng)

    def _measure(self, point: Point, idle_w: float) -> Measurement:
        batch = step_of(point, self._loaded, self._partitions[point.sms], self._rng)
        self._warm_up(batch)
        series = self._series(batch)
        latencies_ms = series.latencies_ms
        latency_ms = float(np.median(latencies_ms))
        first, health = series.results[0], self._device.health()
        busy_s = float(latencies_ms.sum()) / 1e3
        measured = self._measured
        power_w = series.modelled_j / busy_s
        if measured:
            power_w = max(0.0, series.window.mean_w - idle_w) / series.window.covered
        return Measurement(
            phase=point.phase,
            sms=point.sms,
            clock_mhz=point.clock_mhz,
            tokens=point.tokens,
            context=point.context,
            latency_ms=latency_ms,
            power_w=power_w,
            power_source=Provenance.MEASURED if measured else Provenance.MODELLED,
            flops_per_s=1e3 * first.flops / latency_ms,
            bytes_per_s=1e3 * first.bytes_moved / latency_ms,
            spread=_spread(latencies_ms),
            samples=len(series.results),
            observed_mhz=int(np.median(series.clocks_mhz)),
            window_s=series.window.length_s if measured else busy_s,
            covered=series.window.covered if measured else 1.0,
            temperature_c=health.temperature_c,
            throttle=health.throttle,
        )

    @property
    def _measured(self) -> bool:
        """Whether a sensor counts the device's energy."""
        return self._device.energy_j(self._clock()).source is Provenance.MEASURED

    def _warm_up(self, batch: Batch) -> None:
        start, steps = self._clock(), 0
        settle_s = self._plan.settle_s if self._measured else 0.0
        while steps < self._plan.warm_up or self._clock() - start < settle_s:
            self._engine.step(batch)
            steps += 1

    def _series(self, batch: Batch) -> _Series:
        """Steps until there are enough of them and the window of the counter is long enough."""
        series, measured, start = _Series(), self._measured, self._clock()
        while True:
            result = self._engine.step(batch)
            now = self._clock()
            series.results.append(result)
            series.clocks_mhz.append(self._device.clock_mhz())
            if measured:
                energy_j = self._device.energy_j(now).value
                series.window.look(now, energy_j, result.latency_ms / 1e3)
                if series.window.length_s == 0.0 and now - start > COUNTER_STILL_S:
                    raise counter_still(now - start)
            else:
                series.modelled_j += self._account(result)
            long_enough = not measured or series.window.length_s >= max(self._plan.point_s, 1e-9)
            if len(series.results) >= self._plan.repeats and long_enough:
                return series

    def _idle(self, point: Point) -> Measurement:
        """Idle power with a context."""
        return measure_idle(
            self._device, point.clock_mhz, self._plan.point_s, clock=self._clock, sleep=self._sleep
        )

    def _account(self, result: StepResult) -> float:
        return self._device.account(
            self._clock(), result.latency_ms, result.flops, result.bytes_moved
        )

    def _set_clock(self, clock_mhz: int) -> None:
        if not self._device.clocks_mhz or clock_mhz == self._asked_mhz:
            return
        self._device.set_clock_mhz(clock_mhz)
        for _ in range(_CLOCK_POLLS_MAX):
            self._sleep(_CLOCK_POLL_S)
            self._device.power_w(self._clock())
            if self._device.run_clock_mhz() == clock_mhz:
                self._asked_mhz = clock_mhz
                return
        raise DeviceError(
            f"the clock stayed at {self._device.run_clock_mhz()} MHz",
            field="clock_mhz",
            expected=f"{clock_mhz} MHz within {_CLOCK_POLL_S * _CLOCK_POLLS_MAX:g} s",
        )


def _require_room(loaded: LoadedModel, points: tuple[Point, ...]) -> None:
    works = [point for point in points if point.phase != "idle"]
    longest = max(point.sequence_tokens for point in works)
    if longest > loaded.shape.context_tokens:
        raise BadRequestError(
            f"the plan needs {longest} tokens of context",
            field="context_tokens",
            expected=f"at most {loaded.shape.context_tokens}",
        )
    needed = max(point.kv_tokens for point in works)
    if needed > loaded.kv_blocks * BLOCK_TOKENS:
        raise BadRequestError(
            f"the plan needs a KV pool of {needed} tokens",
            field="kv_tokens",
            expected=f"at most {loaded.kv_blocks * BLOCK_TOKENS}",
        )


def _spread(latencies_ms: NDArray[np.float64]) -> float:
    """Relative standard deviation, from the median absolute deviation: outliers do not count."""
    median = float(np.median(latencies_ms))
    return _MAD_TO_DEVIATION * float(np.median(np.abs(latencies_ms - median))) / median
