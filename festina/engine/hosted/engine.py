"""The agent's half: an `Engine` whose models run in a child process."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from festina.config import DeploymentConfig
from festina.engine.base import Batch, LoadedModel, StepResult
from festina.engine.hosted import bulk, frames
from festina.engine.hosted.child import Child, ChildLostError
from festina.engine.hosted.images import Images
from festina.engine.hosted.loading import open_source
from festina.errors import DeviceLostError, EngineError, EngineLostError, FestinaError, from_info
from festina.types import SmPartition

PREDICTIONS_MAX = 20.0
"""A step that takes so many times what was predicted is stuck, if it is long at all."""

Answer = TypeVar("Answer", bound=frames.Reply)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long the process may take.

    Attributes:
        step_s: For a step, or `PREDICTIONS_MAX` times its prediction if that is longer.
        load_s: For a load, or its own start.
    """

    step_s: float = 10.0
    load_s: float = 300.0


class HostedEngine:
    """Runs models in a child process (`Engine` in engine/base.py), which may be parked and lost.

    A process that dies, takes longer than its bound or reports a lost device is killed; from then
    on every call raises `EngineLostError` until `wake` starts another one, with nothing resident.
    Not thread-safe, but for `close`. The process starts with the first object; it ends with
    `close`, with this process, and with the thread that started it.

    Args:
        opening: What the process should be.
        images: Weights, kept hot while parked; owned by the engine.
        bounds: How long it may take.
    """

    def __init__(self, opening: frames.Open, images: Images, bounds: Bounds | None = None) -> None:
        self._opening = opening
        self._images = images
        self._bounds = bounds or Bounds()
        self._models_dir = Path(opening.models_dir) if opening.models_dir else None
        self._lost = ""
        self._lock = threading.Lock()  # of _child and _closed: `close` comes from other threads
        self._closed = False
        self._bulk_fd = bulk.create()
        self._child: Child | None = Child()
        self._spare: Child | None = None
        self._child.open(opening, self._bulk_fd)

    @property
    def pid(self) -> int:
        """Process id of the child that holds the context; 0 where there is none."""
        child = self._child
        return 0 if child is None else child.pid

    def partitions(self) -> tuple[SmPartition, ...]:
        """The SM ladder of the process' device, once it has one; empty for a CPU.

        Raises:
            FestinaError: Why the process refuses to start.
            EngineLostError: It did not start.
        """
        child = self._living()
        try:
            return child.await_ready(self._bounds.load_s).partitions
        except ChildLostError as error:
            self._lose(error)

    def park(self) -> None:
        """End the process, and with it the device's context; keep its weights hot. Idempotent.

        Another process stays ready that has no context yet: starting one takes most of a wake.
        """
        child = self._take("the engine is parked")
        if child is not None:
            child.end()
        self._images.heat()
        with self._lock:
            if self._spare is None and not self._closed:
                self._spare = Child()

    def wake(self) -> None:
        """Start a process, after `park` or a loss; nothing is resident.

        Raises:
            EngineLostError: It does not start.
        """
        self._kill("the engine is being replaced")
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            with suppress(EngineLostError):  # it died as it stood ready; a new one may do better
                self._start(spare)
                return
        self._start(Child())

    def check(self) -> None:
        """Whether the process lives and answers.

        Raises:
            EngineLostError: It does not.
        """
        self._ask(frames.Check(), frames.Done, self._bounds.step_s)

    def close(self) -> None:
        """End the process, from any thread: a call under way fails soon. Idempotent."""
        with self._lock:
            children, closed, self._closed = (self._child, self._spare), self._closed, True
        for child in children:
            if child is not None:
                child.kill()
                child.close()
        self._images.close()
        if not closed:
            os.close(self._bulk_fd)

    def load(self, deployment: DeploymentConfig) -> LoadedModel:
        """Make a deployment resident: the process maps weights while the tokenizer is made here.

        Raises:
            WeightsError: The file is missing, truncated or inconsistent.
            UnsupportedModelError: Its architecture or quantisation is not implemented.
            DeviceError: It does not fit.
            EngineLostError: The process is gone.
        """
        weights = deployment.weights
        with open_source(weights, self._images, self._models_dir) as source:
            self._say(frames.Load(deployment, source.image), self._bounds.load_s, source.fds)
        error: FestinaError | None = None
        try:
            tokenizer = source.tokenizer()
        except FestinaError as unusable:
            error = unusable
        loaded = self._hear(frames.Loaded, self._bounds.load_s)
        if error is not None:
            self.unload(deployment.name)
            raise error
        return LoadedModel(deployment.name, loaded.shape, loaded.kv_blocks, tokenizer)

    def unload(self, model: str) -> None:
        """Give weights and KV pool back.

        Raises:
            EngineLostError: The process is gone.
            EngineError: Nothing of that name is resident.
        """
        self._ask(frames.Unload(model), frames.Done, self._bounds.load_s)

    def step(self, batch: Batch) -> StepResult:
        """Compute one step.

        Raises:
            EngineLostError: The process is gone, or this step took too long.
            EngineError: The step failed.
        """
        chunks = tuple(
            frames.WireChunk(
                chunk.token_ids.tobytes(),
                chunk.start,
                chunk.blocks.tobytes(),
                chunk.sampling,
                chunk.output_index,
            )
            for chunk in batch.chunks
        )
        request = frames.Step(batch.model, chunks, batch.point, batch.partition)
        within_s = max(self._bounds.step_s, PREDICTIONS_MAX * batch.predicted_ms / 1e3)
        done = self._ask(request, frames.Stepped, within_s)
        return StepResult(
            done.token_ids, done.latency_ms, done.flops, done.bytes_moved, done.logprobs
        )

    def export_blocks(self, model: str, blocks: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Contents of KV blocks, uint8 (len(blocks), bytes per block), a copy.

        Raises:
            EngineLostError: The process is gone.
            EngineError: The model is not resident, or a block lies outside its pool.
        """
        request = frames.Export(model, blocks.astype(np.int32).tobytes())
        done = self._ask(request, frames.Exported, self._bounds.step_s)
        return bulk.take(self._bulk_fd, done.rows, done.row_bytes)

    def import_blocks(self, model: str, blocks: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Write what `export_blocks` gave into other blocks of the same deployment's pool.

        Raises:
            EngineLostError: The process is gone.
            EngineError: As `export_blocks`, or `data` has another shape than these blocks.
        """
        if data.ndim != 2 or data.dtype != np.uint8:
            raise EngineError(
                f"blocks are {data.dtype} {data.shape}", field="data", expected="uint8 of 2 axes"
            )
        bulk.write(self._bulk_fd, data)
        request = frames.Import(model, blocks.astype(np.int32).tobytes(), *data.shape)
        self._ask(request, frames.Done, self._bounds.step_s)

    def _start(self, child: Child) -> None:
        with self._lock:
            closed, self._child = self._closed, child
        if closed:
            self._lose(ChildLostError("is not started: the engine is closed"))
        child.open(self._opening, self._bulk_fd)
        try:
            self.check()
        except EngineLostError:
            raise
        except FestinaError as error:  # it refuses: the device is not there, say
            self._lose(error)

    def _ask(self, request: frames.Request, expected: type[Answer], within_s: float) -> Answer:
        self._say(request, within_s)
        return self._hear(expected, within_s)

    def _say(self, request: frames.Request, within_s: float, fds: Sequence[int] = ()) -> None:
        child = self._living()
        try:
            self.partitions()
            child.say(request, within_s, fds)
        except ChildLostError as error:
            self._lose(error)

    def _hear(self, expected: type[Answer], within_s: float) -> Answer:
        child = self._living()
        try:
            reply = child.hear(within_s)
        except ChildLostError as error:
            self._lose(error)
        if isinstance(reply, frames.Raised):
            refusal = from_info(reply.error)
            if isinstance(refusal, DeviceLostError | EngineLostError):
                self._lose(refusal)
            raise refusal
        if not isinstance(reply, expected):
            self._lose(ChildLostError(f"answered with {type(reply).__name__}"))
        return reply

    def _living(self) -> Child:
        child = self._child
        if child is None or self._closed:
            raise EngineLostError(self._lost or "the engine is closed")
        return child

    def _lose(self, error: Exception) -> NoReturn:
        reason = f"the engine's process {error}"
        self._kill(reason)
        raise EngineLostError(reason) from error

    def _kill(self, reason: str) -> None:
        child = self._take(reason)
        if child is not None:
            child.kill()
            child.close()

    def _take(self, reason: str) -> Child | None:
        """The child, which nobody else has from now on."""
        with self._lock:
            child, self._child, self._lost = self._child, None, reason
        return child
