"""A GPU ready for benches: device, engine, sensors, and time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from festina.config import DeploymentConfig
from festina.device.base import Device
from festina.device.energy_window import EnergyWindow
from festina.device.nvidia.nvml import Gpu
from festina.engine.base import Batch, Engine, LoadedModel, StepResult
from festina.engine.profile_plan import Point
from festina.engine.synthetic import fill_cache, step_of
from festina.engine.weights_name import RANDOM_PREFIX
from festina.types import SmPartition

STILL_S = 30.0
"""A window longer than this beyond what was asked for has a counter that stands still."""


class Ladder(Protocol):
    """`festina.device.nvidia.ladder.SmLadder`."""

    partitions: tuple[SmPartition, ...]

    def switch_to(self, rung: int) -> None:
        """Work goes to a rung from now on."""


Job = Callable[[], StepResult]

Together = Callable[[Sequence[Job], float, Callable[[], None]], list[list[StepResult]]]
"""Repeats jobs side by side for so many seconds; gives what each of them gave.

Each is done once before, after which the last argument is called.
"""

WARM_S = 120.0
"""How long the first steps of jobs side by side may take."""


@dataclass(slots=True)
class Rig:
    """What benches work with.

    Attributes:
        device: The GPU.
        engine: Runs models on it.
        gpu: Its sensors.
        make_ladder: Makes a ladder of partitions, another one each time.
        clock: Monotonic seconds.
        sleep: Waits for so many seconds.
        together: Runs jobs side by side.
        window_s: Length of a measurement.
        settle_s: Of work before it.
    """

    device: Device
    engine: Engine
    gpu: Gpu
    make_ladder: Callable[[], Ladder]
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    together: Together
    window_s: float = 5.0
    settle_s: float = 0.5

    @property
    def whole(self) -> SmPartition:
        """The whole device."""
        return self.device.partitions[0]

    @property
    def firsts(self) -> list[SmPartition]:
        """The first half of every rung and the whole device, ascending."""
        return sorted((one for one in self.device.partitions if one.side == 0), key=lambda p: p.sms)

    def halves(self) -> tuple[SmPartition, SmPartition]:
        """The two halves of the rung that is split most evenly."""
        firsts = [one for one in self.firsts if one.rung]
        first = min(firsts, key=lambda one: abs(2 * one.sms - self.whole.sms))
        (second,) = (p for p in self.device.partitions if (p.rung, p.side) == (first.rung, 1))
        return first, second

    @contextmanager
    def model(self, shape: str, kv_tokens: int, context_tokens: int) -> Iterator[LoadedModel]:
        """A shape with random weights and a cache with random content."""
        loaded = self.engine.load(
            DeploymentConfig(
                name=shape,
                weights=RANDOM_PREFIX + shape,
                context_tokens=context_tokens,
                kv_tokens=kv_tokens,
            )
        )
        try:
            rng = np.random.default_rng(0)
            tokens = (min(context_tokens, kv_tokens), kv_tokens)
            fill_cache(self.engine, loaded, self.whole, tokens, rng)
            yield loaded
        finally:
            self.engine.unload(shape)

    def step(
        self, loaded: LoadedModel, phase: str, tokens: int, context: int, partition: SmPartition
    ) -> Batch:
        """A step with random tokens."""
        clock_mhz = self.device.run_clock_mhz()
        point = Point(phase, partition.sms, clock_mhz, tokens, context)
        return step_of(point, loaded, partition, np.random.default_rng(1))


@dataclass(frozen=True, slots=True)
class Steady:
    """Work that went on for a while.

    Attributes:
        latency_ms: Median of a step.
        p99_ms: 99th percentile.
        power_w: Mean power of the board.
        clock_mhz: Median clock.
        steps: How many.
        window_s: Over which power was counted.
    """

    latency_ms: float
    p99_ms: float
    power_w: float
    clock_mhz: float
    steps: int
    window_s: float


def steady(rig: Rig, batch: Batch, every_ms: float = 0.0) -> Steady:
    """Repeat a step until its window is long enough; with `every_ms`, start one as often as that.

    Raises:
        RuntimeError: The energy counter stands still.
    """
    start, window = rig.clock(), EnergyWindow()
    latencies: list[float] = []
    clocks: list[int] = []
    while window.length_s < rig.window_s:
        began = rig.clock()
        result = rig.engine.step(batch)
        now = rig.clock()
        if now - start > rig.settle_s:
            latencies.append(result.latency_ms)
            clocks.append(rig.device.clock_mhz())
            window.look(now, rig.device.energy_j(now).value, result.latency_ms / 1e3)
        if now - start > rig.settle_s + rig.window_s + STILL_S:
            raise RuntimeError("the energy counter stands still")
        rest_s = every_ms / 1e3 - (rig.clock() - began)
        if rest_s > 0.0:
            rig.sleep(rest_s)
    return Steady(
        latency_ms=float(np.median(latencies)),
        p99_ms=float(np.quantile(latencies, 0.99)),
        power_w=window.mean_w,
        clock_mhz=float(np.median(clocks)),
        steps=len(latencies),
        window_s=window.length_s,
    )


def threads_together(clock: Callable[[], float]) -> Together:
    """Side by side for real: a thread for each job, as the engine allows on two partitions."""

    def together(
        jobs: Sequence[Job], seconds: float, started: Callable[[], None]
    ) -> list[list[StepResult]]:
        ready = threading.Barrier(len(jobs), started, WARM_S)

        def repeat(job: Job) -> list[StepResult]:
            job()  # a thread's first step makes its library handles and graphs
            ready.wait()  # RuntimeError where another's first step failed
            end, results = clock() + seconds, []
            while clock() < end:
                results.append(job())
            return results

        with ThreadPoolExecutor(len(jobs)) as threads:
            return list(threads.map(repeat, jobs))

    return together
