"""Measures a resident model on a device: latency and power of prefill and decode steps.

The profiler drives any `Engine` on any `Device` and gives the rows of a profile. Token ids are
random, since neither caches nor multipliers treat zeros as they treat text. It needs the device for
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from festina.device.base import Device
from festina.engine.base import BLOCK_TOKENS, Batch, Chunk, Engine, LoadedModel, StepResult
from festina.errors import BadRequestError, DeviceError
from festina.profile_format import ProfileRow
from festina.types import OperatingPoint, Provenance, Sampling, SmPartition

_FILL_TOKENS = 128
_GREEDY = Sampling()
_CLOCK_POLL_S = 0.02
_CLOCK_POLLS_MAX = 250
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """What to measure.

    Attributes:
        prefill_tokens: New tokens of a prefill step.
        prefill_cached: Tokens cached before it.
        decode_batches: Sequences of a decode step.
        decode_contexts: Tokens cached per sequence.
        repeats: Steps measured per point.
        warm_up: Steps thrown away before them.
        seed: Seed of the token ids.
    """

    prefill_tokens: tuple[int, ...] = (1, 16, 64, 128, 256)
    prefill_cached: tuple[int, ...] = (0, 512, 1792)
    decode_batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    decode_contexts: tuple[int, ...] = (16, 512, 2016)
    repeats: int = 5
    warm_up: int = 1
    seed: int = 0

    @property
    def sequence_blocks(self) -> int:
        """KV blocks of the longest sequence."""
        prefill = max(self.prefill_tokens) + max(self.prefill_cached)
        return -(-max(prefill, max(self.decode_contexts) + 1) // BLOCK_TOKENS)

    @property
    def kv_tokens(self) -> int:
        """KV pool that the plan needs."""
        return max(self.decode_batches) * self.sequence_blocks * BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a step runs."""

    clock_mhz: int
    partition: SmPartition


class Profiler:
    """Measures one resident model. Not thread-safe; nothing else may use engine or device.

    Args:
        engine: Runs the steps.
        loaded: What `engine.load` gave, with a KV pool of at least `plan.kv_tokens`.
        device: Where the engine runs.
        plan: What to measure.
        clock: Monotonic seconds, as the device knows them.
        sleep: Waits for so many seconds.

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
        _require_room(loaded, plan)
        self._engine = engine
        self._loaded = loaded
        self._device = device
        self._plan = plan
        self._clock = clock
        self._sleep = sleep
        self._rng = np.random.default_rng(plan.seed)
        blocks = np.arange(max(plan.decode_batches) * plan.sequence_blocks, dtype=np.int32)
        self._tables = blocks.reshape(-1, plan.sequence_blocks)

    @property
    def points(self) -> int:
        """How many rows there will be."""
        plan = self._plan
        prefill = len(plan.prefill_tokens) * len(plan.prefill_cached)
        decode = len(plan.decode_batches) * len(plan.decode_contexts)
        clocks = len(self._device.clocks_mhz) or 1
        return clocks * (len(self._device.partitions) * (prefill + decode) + 1)

    def rows(self) -> Iterator[ProfileRow]:
        """Every row of the plan, as it is measured: per clock its SM rungs, then its idle power.

        Raises:
            EngineError: A step failed.
            DeviceError: A clock did not come to hold.
        """
        self._fill()
        for clock_mhz in self._device.clocks_mhz or (0,):
            self._set_clock(clock_mhz)
            for partition in reversed(self._device.partitions):
                spot = _Spot(clock_mhz, partition)
                yield from self._prefill_rows(spot)
                yield from self._decode_rows(spot)
            yield self._idle_row(clock_mhz)

    def _fill(self) -> None:
        """Put random content into the first sequence's blocks and copy it to all others."""
        first = self._tables[0]
        spot = _Spot(self._device.clock_mhz(), self._device.partitions[0])
        tokens = len(first) * BLOCK_TOKENS
        for start in range(0, tokens, _FILL_TOKENS):
            count = min(_FILL_TOKENS, tokens - start)
            self._step(spot, (self._chunk(first, start, count, sampling=None),))
        data = self._engine.export_blocks(self._loaded.model, first)
        for table in self._tables[1:]:
            self._engine.import_blocks(self._loaded.model, table, data)

    def _prefill_rows(self, spot: _Spot) -> Iterator[ProfileRow]:
        for tokens in self._plan.prefill_tokens:
            for cached in self._plan.prefill_cached:
                chunks = (self._chunk(self._tables[0], cached, tokens),)
                yield self._measure("prefill", spot, tokens, cached, chunks)

    def _decode_rows(self, spot: _Spot) -> Iterator[ProfileRow]:
        for batch in self._plan.decode_batches:
            for context in self._plan.decode_contexts:
                chunks = tuple(self._chunk(table, context, 1) for table in self._tables[:batch])
                yield self._measure("decode", spot, batch, context, chunks)

    def _measure(
        self, phase: str, spot: _Spot, tokens: int, context: int, chunks: tuple[Chunk, ...]
    ) -> ProfileRow:
        for _ in range(self._plan.warm_up):
            self._step(spot, chunks)
        results, energies_j = [], []
        for _ in range(self._plan.repeats):
            result = self._step(spot, chunks)
            results.append(result)
            energies_j.append(self._account(result))
        latencies_ms = np.array([result.latency_ms for result in results])
        latency_ms = float(np.median(latencies_ms))
        return ProfileRow(
            phase=phase,
            sms=spot.partition.sms,
            clock_mhz=spot.clock_mhz,
            tokens=tokens,
            context=context,
            latency_ms=latency_ms,
            power_w=1e3 * sum(energies_j) / float(latencies_ms.sum()),
            flops_per_s=1e3 * results[0].flops / latency_ms,
            bytes_per_s=1e3 * results[0].bytes_moved / latency_ms,
            spread=_spread(latencies_ms),
            samples=len(results),
            source=Provenance.MEASURED.value,
        )

    def _idle_row(self, clock_mhz: int) -> ProfileRow:
        self._sleep(1.5)  # longer than the window over which devices average power
        reading = self._device.power_w(self._clock())
        source = reading.source.value
        return ProfileRow("idle", 0, clock_mhz, 0, 0, 0.0, reading.value, 0.0, 0.0, 0.0, 1, source)

    def _step(self, spot: _Spot, chunks: tuple[Chunk, ...]) -> StepResult:
        point = OperatingPoint(spot.clock_mhz, spot.partition.sms)
        return self._engine.step(Batch(self._loaded.model, chunks, point, spot.partition))

    def _account(self, result: StepResult) -> float:
        return self._device.account(
            self._clock(), result.latency_ms, result.flops, result.bytes_moved
        )

    def _chunk(
        self, table: NDArray[np.int32], start: int, count: int, sampling: Sampling | None = _GREEDY
    ) -> Chunk:
        ids = self._rng.integers(0, self._loaded.shape.vocabulary, count, dtype=np.int32)
        blocks = table[: -(-(start + count) // BLOCK_TOKENS)]
        return Chunk(ids, start, blocks, sampling, output_index=0)

    def _set_clock(self, clock_mhz: int) -> None:
        if not self._device.clocks_mhz:
            return
        self._device.set_clock_mhz(clock_mhz)
        for _ in range(_CLOCK_POLLS_MAX):
            self._sleep(_CLOCK_POLL_S)
            self._device.power_w(self._clock())
            if self._device.clock_mhz() == clock_mhz:
                return
        raise DeviceError(
            f"the clock stayed at {self._device.clock_mhz()} MHz",
            field="clock_mhz",
            expected=f"{clock_mhz} MHz within {_CLOCK_POLL_S * _CLOCK_POLLS_MAX:g} s",
        )


def _require_room(loaded: LoadedModel, plan: ProfilePlan) -> None:
    longest = plan.sequence_blocks * BLOCK_TOKENS
    if longest > loaded.shape.context_tokens:
        raise BadRequestError(
            f"the plan needs {longest} tokens of context",
            field="context_tokens",
            expected=f"at most {loaded.shape.context_tokens}",
        )
    if plan.kv_tokens > loaded.kv_blocks * BLOCK_TOKENS:
        raise BadRequestError(
            f"the plan needs a KV pool of {plan.kv_tokens} tokens",
            field="kv_tokens",
            expected=f"at most {loaded.kv_blocks * BLOCK_TOKENS}",
        )


def _spread(latencies_ms: NDArray[np.float64]) -> float:
    """Relative standard deviation, from the median absolute deviation: outliers do not count."""
    median = float(np.median(latencies_ms))
    return _MAD_TO_DEVIATION * float(np.median(np.abs(latencies_ms - median))) / median
