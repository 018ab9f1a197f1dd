"""The engine process' half: do what is asked, one thing after the other, and answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from festina.device.nvidia.ladder import SmLadder
from festina.engine.base import Batch, Chunk, Engine
from festina.engine.cpu.engine import CpuEngine
from festina.engine.cuda.extras import require_torch
from festina.engine.hosted import bulk, frames
from festina.engine.hosted.channel import Channel, close_all
from festina.engine.hosted.weights_map import MappedWeights, read_ahead
from festina.engine.weights import read_weights
from festina.errors import EngineError, FestinaError, ProtocolError
from festina.types import SmPartition


def open_engine(opening: frames.Open) -> tuple[Engine, tuple[SmPartition, ...]]:
    """The engine that is asked for, and the SM ladder of its device.

    Raises:
        DeviceError: No such GPU, or no driver.
        UnsupportedEngineError: What runs models on it is not installed.
    """
    if opening.engine == "cpu":
        return CpuEngine(_folder(opening), isa=opening.isa), ()
    from festina.device.nvidia.opening import open_ladder

    ladder = open_ladder(opening.ordinal)
    return cuda_engine(opening, ladder), ladder.partitions


def cuda_engine(opening: frames.Open, ladder: SmLadder) -> Engine:
    """The engine that is asked for, on a GPU whose ladder this process has made.

    Raises:
        DeviceError: PyTorch cannot use the GPU.
        UnsupportedEngineError: What runs models on it is not installed.
    """
    require_torch()
    # PyTorch is an extra, and slow to import.
    from festina.engine.cuda.graph_plan import GraphRules
    from festina.engine.cuda.opening import engine_on_gpu
    from festina.engine.cuda.options import EngineOptions

    rules = GraphRules(opening.graphs_max, opening.graphs_ahead, opening.batch_max)
    options = EngineOptions(graphs=rules)
    return engine_on_gpu(opening.ordinal, ladder, _folder(opening), options)


def _folder(opening: frames.Open) -> Path | None:
    return Path(opening.models_dir) if opening.models_dir else None


class Server:
    """Serves one engine until the agent closes the stream.

    Args:
        channel: To the agent.
        engine: What computes.
        bulk_fd: Memory shared with the agent.
        reached: Told of every frame that is received, or about to be sent (failpoints).
    """

    def __init__(
        self,
        channel: Channel,
        engine: Engine,
        bulk_fd: int,
        reached: Callable[[str, object], None] = lambda _place, _frame: None,
    ) -> None:
        self._channel = channel
        self._engine = engine
        self._bulk_fd = bulk_fd
        self._reached = reached
        self._names: set[str] = set()

    def serve(self) -> None:
        """Until the agent closes the stream, or is gone.

        Raises:
            ProtocolError: It said something else than a request.
        """
        while True:
            try:
                body, fds = self._channel.receive()
            except ConnectionError:
                return
            try:
                request = frames.decode_request(body)
                self._reached("engine.receive", request)
                reply = self._answer(request, fds)
            finally:
                close_all(fds)
            self._reached("engine.send", reply)
            try:
                self._channel.send(reply)
            except ConnectionError:
                return

    def _answer(self, request: frames.Request, fds: Sequence[int]) -> frames.Reply:
        try:
            return self._do(request, fds)
        except FestinaError as error:
            return frames.Raised(error.info())

    def _do(self, request: frames.Request, fds: Sequence[int]) -> frames.Reply:
        match request:
            case frames.Step():
                return self._step(request)
            case frames.Load():
                return self._load(request, fds)
            case frames.Unload(model):
                self._require(model)
                self._engine.unload(model)
                self._names.remove(model)
            case frames.Export(model, blocks):
                data = self._engine.export_blocks(model, _ints(blocks))
                bulk.write(self._bulk_fd, data)
                return frames.Exported(*data.shape)
            case frames.Import(model, blocks, rows, row_bytes):
                data = bulk.take(self._bulk_fd, rows, row_bytes)
                self._engine.import_blocks(model, _ints(blocks), data)
            case frames.Open():
                raise ProtocolError("the engine is open already", field="frame")
        return frames.Done()

    def _step(self, step: frames.Step) -> frames.Stepped:
        chunks = tuple(
            Chunk(
                _ints(chunk.token_ids),
                chunk.start,
                _ints(chunk.blocks),
                chunk.sampling,
                chunk.output_index,
            )
            for chunk in step.chunks
        )
        done = self._engine.step(Batch(step.model, chunks, step.point, step.partition))
        return frames.Stepped(
            done.token_ids, done.latency_ms, done.flops, done.bytes_moved, done.logprobs
        )

    def _load(self, load: frames.Load, fds: Sequence[int]) -> frames.Loaded:
        image, deployment = load.image, load.deployment
        if image is not None and not image.hot:
            read_ahead(image, os.dup(fds[0]))
        if image is not None and isinstance(self._engine, CpuEngine):
            weights = read_weights(MappedWeights(image, fds[0]), image.config)
            shape, blocks = self._engine.place(deployment, image.config, weights)
        else:
            if image is not None:
                weights_file = f"/proc/self/fd/{fds[0]}"
                deployment = msgspec.structs.replace(deployment, weights=weights_file)
            loaded = self._engine.load(deployment)
            shape, blocks = loaded.shape, loaded.kv_blocks
        self._names.add(deployment.name)
        return frames.Loaded(shape, blocks)

    def _require(self, model: str) -> None:
        if model not in self._names:
            raise EngineError(
                f"{model!r} is not resident", field="model", expected="a loaded deployment"
            )


def _ints(data: bytes) -> NDArray[np.int32]:
    return np.frombuffer(data, np.int32)
