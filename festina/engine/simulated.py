"""An engine without arithmetic: it waits as long as the analytic GPU says a step would take.

Tokens depend on the content of their sequence alone, through the KV blocks, so that a step with a
wrong block table, or a lost or misplaced block, gives another text. That makes it a test of
everything around an engine, at the speed of a GPU and without one.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from festina.config import DeploymentConfig
from festina.device import physics
from festina.device.simulated import SimulatedDevice
from festina.engine.base import (
    BLOCK_TOKENS,
    Batch,
    Chunk,
    LoadedModel,
    ModelShape,
    StepResult,
)
from festina.engine.content_hash import extend, extend_one, pick
from festina.engine.simulated_tokenizer import SimulatedTokenizer
from festina.errors import DeviceError, EngineError, UnsupportedModelError
from festina.types import Phase

PREFIX = "sim:"
"""Deployments name a shape as `sim:llama-8b`."""


@dataclass(frozen=True, slots=True)
class SimulatedNoise:
    """How far reality strays from the profile.

    Attributes:
        bias: Standard deviation of a fixed factor per (model, phase): the profile's error.
        jitter: Standard deviation of a factor per step.
        seed: Seed of both.
    """

    bias: float = 0.05
    jitter: float = 0.02
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Resident:
    decoder: physics.Decoder
    states: NDArray[np.uint64]
    """One hash of all content so far per token slot: uint64 (blocks, BLOCK_TOKENS)."""
    memory_bytes: int
    bias: dict[Phase, float]


class SimulatedEngine:
    """Runs shapes of models on a `SimulatedDevice` in real time (`Engine` in engine/base.py).

    A step takes physics' latency at the device's clock, times the bias and jitter of `noise`. A
    switch that is under way when it starts counts, one that is asked for later does not. The
    reported `latency_ms` is that duration, not what `sleep` made of it. One thread steps; it or
    another one loads and unloads.

    Args:
        device: Where it runs; the engine reads its clock and never sets it.
        noise: How far latencies stray from physics.
        clock: Seconds of the device's time.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        device: SimulatedDevice,
        noise: SimulatedNoise | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._device = device
        self._noise = noise or SimulatedNoise()
        self._clock = clock
        self._sleep = sleep
        self._rng = np.random.default_rng(self._noise.seed)
        self._resident: dict[str, _Resident] = {}

    def load(self, deployment: DeploymentConfig) -> LoadedModel:
        """Make a shape resident; takes as long as its weights from pinned host memory.

        Raises:
            UnsupportedModelError: `weights` is not `sim:` and the name of a shape.
            DeviceError: It does not fit into the device's memory.
        """
        if not deployment.weights.startswith(PREFIX):
            raise UnsupportedModelError(
                f"a simulated device cannot run {deployment.weights!r}",
                field="weights",
                expected=" or ".join(PREFIX + name for name in physics.MODELS),
            )
        decoder = physics.model_named(deployment.weights.removeprefix(PREFIX))
        blocks = math.ceil(deployment.kv_tokens / BLOCK_TOKENS)
        kv_bytes = blocks * BLOCK_TOKENS * decoder.kv_bytes_per_token
        self._require_memory(deployment.name, decoder.resident_bytes + kv_bytes)
        start = self._clock()
        self._resident[deployment.name] = _Resident(
            decoder=decoder,
            states=np.zeros((blocks, BLOCK_TOKENS), np.uint64),
            memory_bytes=decoder.resident_bytes + kv_bytes,
            bias={phase: self._bias(deployment.name, phase) for phase in Phase},
        )
        self._wait(start, physics.load_ms(self._device.gpu, decoder.resident_bytes))
        return LoadedModel(
            model=deployment.name,
            shape=_shape(decoder, deployment.context_tokens),
            kv_blocks=blocks,
            tokenizer=SimulatedTokenizer(),
            has_logits=False,
        )

    def clear(self) -> None:
        """Give all memory back, as a context that ends does."""
        self._resident.clear()

    def unload(self, model: str) -> None:
        """Give memory back."""
        del self._resident[model]

    def step(self, batch: Batch) -> StepResult:
        """Wait for the step's duration and choose tokens.

        Raises:
            EngineError: Unknown model, a block table that is too short or points outside the
                pool, or a partition that the device does not have.
        """
        start = self._clock()
        resident = self._resident_of(batch.model)
        if batch.partition not in self._device.partitions:
            raise EngineError(
                f"{self._device.kind} has no such partition",
                field="partition",
                expected=f"one of {self._device.partitions}",
            )
        work = physics.step_work(
            resident.decoder, [(len(chunk.token_ids), chunk.start) for chunk in batch.chunks]
        )
        stray = resident.bias[work.phase] + self._rng.normal(0.0, self._noise.jitter)
        latency_ms = self._latency_ms(work, batch.partition.sms, math.exp(stray), start)
        token_ids = tuple(_choose(resident.states, chunk) for chunk in batch.chunks)
        self._wait(start, latency_ms)
        return StepResult(token_ids, latency_ms, float(work.flops), float(work.bytes_moved))

    def export_blocks(self, model: str, blocks: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Contents of blocks: uint8 (len(blocks), 8·BLOCK_TOKENS)."""
        states = self._resident_of(model).states
        return states[blocks].view(np.uint8).reshape(len(blocks), -1)

    def import_blocks(self, model: str, blocks: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Write what `export_blocks` gave into other blocks.

        Raises:
            EngineError: `data` has another shape.
        """
        states = self._resident_of(model).states
        expected = (len(blocks), BLOCK_TOKENS * states.itemsize)
        if data.shape != expected or data.dtype != np.uint8:
            raise EngineError(
                f"blocks are {data.dtype} {data.shape}", field="data", expected=f"uint8 {expected}"
            )
        states[blocks] = np.ascontiguousarray(data).view(np.uint64)

    def _latency_ms(self, work: physics.Work, sms: int, slower: float, now: float) -> float:
        """Of a step that starts now, and goes on at another clock if a switch is under way."""

        def alone_ms(clock_mhz: int) -> float:
            return float(physics.run(self._device.gpu, work, sms, clock_mhz).latency_ms) * slower

        latency_ms = alone_ms(self._device.clock_mhz())
        switch = self._device.pending_switch()
        if switch is None:
            return latency_ms
        before_ms = max(0.0, switch.due - now) * 1e3
        if before_ms >= latency_ms:
            return latency_ms
        return before_ms + (1.0 - before_ms / latency_ms) * alone_ms(switch.clock_mhz)

    def _resident_of(self, model: str) -> _Resident:
        try:
            return self._resident[model]
        except KeyError:
            raise EngineError(
                f"{model!r} is not resident", field="model", expected="a loaded deployment"
            ) from None

    def _require_memory(self, model: str, wanted_bytes: int) -> None:
        used = sum(r.memory_bytes for name, r in self._resident.items() if name != model)
        free = self._device.memory_bytes - used
        if wanted_bytes > free:
            raise DeviceError(
                f"{model!r} needs {wanted_bytes} bytes", field="memory", expected=f"at most {free}"
            )

    def _bias(self, model: str, phase: Phase) -> float:
        key = zlib.crc32(f"{model}/{phase.name}".encode())
        return float(np.random.default_rng((self._noise.seed, key)).normal(0.0, self._noise.bias))

    def _wait(self, start: float, duration_ms: float) -> None:
        remaining_s = start + duration_ms / 1e3 - self._clock()
        if remaining_s > 0.0:
            self._sleep(remaining_s)


def _shape(decoder: physics.Decoder, context_tokens: int) -> ModelShape:
    return ModelShape(
        parameters=decoder.parameters,
        weight_bytes=decoder.weight_bytes,
        kv_bytes_per_token=decoder.kv_bytes_per_token,
        context_tokens=min(context_tokens, decoder.context_tokens),
        vocabulary=SimulatedTokenizer.vocabulary,
    )


def _choose(states: NDArray[np.uint64], chunk: Chunk) -> int | None:
    """Write the chunk's slots and choose its next token."""
    before = int(states[_slot(states, chunk, chunk.start - 1)]) if chunk.start else 0
    if len(chunk.token_ids) == 1:  # a decode: no arrays for one token
        last = extend_one(before, int(chunk.token_ids[0]))
        states[_slot(states, chunk, chunk.start)] = last
    else:
        fresh = extend(before, chunk.token_ids)
        position = np.arange(chunk.start, chunk.start + len(fresh))
        states[_slots(states, chunk, position)] = fresh
        last = int(fresh[-1])
    if chunk.sampling is None:
        return None
    draw = chunk.sampling.seed if chunk.sampling.temperature > 0.0 else 0
    return SimulatedTokenizer.first_printable + pick(last, draw, SimulatedTokenizer.printable)


def _slot(states: NDArray[np.uint64], chunk: Chunk, position: int) -> tuple[int, int]:
    place, offset = divmod(position, BLOCK_TOKENS)
    if place >= len(chunk.blocks):
        raise _short_table(chunk)
    block = int(chunk.blocks[place])
    if not 0 <= block < len(states):
        raise _outside(states)
    return block, offset


def _slots(
    states: NDArray[np.uint64], chunk: Chunk, position: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    place, offset = np.divmod(position, BLOCK_TOKENS)
    if place[-1] >= len(chunk.blocks):
        raise _short_table(chunk)
    blocks = chunk.blocks[place]
    if blocks.min() < 0 or blocks.max() >= len(states):
        raise _outside(states)
    return blocks, offset


def _short_table(chunk: Chunk) -> EngineError:
    end = chunk.start + len(chunk.token_ids)
    return EngineError(
        f"{len(chunk.blocks)} blocks do not hold {end} tokens",
        field="blocks",
        expected=f"at least {math.ceil(end / BLOCK_TOKENS)}",
    )


def _outside(states: NDArray[np.uint64]) -> EngineError:
    return EngineError(
        "a block lies outside the pool", field="blocks", expected=f"0 to {len(states) - 1}"
    )
