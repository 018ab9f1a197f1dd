"""Decode steps as CUDA graphs: hundreds of small kernels for the price of one launch.

The nodes of a graph keep the SM partition of the stream that they were captured on, so there is one
graph per (lane, batch bucket), each with buffers at fixed addresses. Smaller batches are padded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from festina.engine.base import Chunk
from festina.engine.cuda.batches import DeviceBatch, Layout, pack
from festina.engine.cuda.decoder import Decoder
from festina.engine.cuda.lanes import Lane

BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Sequences of a graph. A larger decode batch runs eagerly: there launches cost little."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a step leaves on the device.

    Attributes:
        logits: (r, vocabulary).
        best: int64 (r,): the largest logit, the first of equals.
    """

    logits: torch.Tensor
    best: torch.Tensor


class DecodeBuffers:
    """One bucket's input at a fixed address, and what reads it.

    Args:
        decoder: The model.
        layout: One token per sequence.
        lane: Where it runs.
        device: Where the model is.
    """

    def __init__(self, decoder: Decoder, layout: Layout, lane: Lane, device: torch.device) -> None:
        self._decoder = decoder
        pinned = lane.stream is not None
        self._staging = torch.zeros(layout.size, dtype=torch.int32, pin_memory=pinned)
        self._flat = torch.zeros(layout.size, dtype=torch.int32, device=device)
        self._batch = DeviceBatch(
            layout.fields(self._flat), singles=layout.sequences, sms=lane.partition.sms
        )
        self._out = lane.outputs(layout.sequences, decoder.config.vocabulary)

    def feed(self, flat: NDArray[np.int32]) -> None:
        """Send the integers of a step on their way."""
        self._staging.numpy()[:] = flat
        self._flat.copy_(self._staging, non_blocking=True)

    def compute(self) -> Choice:
        """Give the step's kernels to the lane's stream."""
        self._out.copy_(self._decoder.logits(self._decoder.hidden(self._batch)))
        return Choice(self._out, self._out.argmax(-1))


Replay = Callable[[], Choice]


def capture(buffers: DecodeBuffers, lane: Lane, lock: threading.Lock) -> Replay:
    """A graph of `buffers.compute` on the lane, which the calling thread has entered and warmed.

    Other lanes may run meanwhile, but not capture: `lock` sees to that. Nothing here waits for the
    device, which would be an error while another thread captures.
    """
    graph = torch.cuda.CUDAGraph()
    with lock:
        graph.capture_begin(pool=lane.graph_pool, capture_error_mode="thread_local")
        try:
            choice = buffers.compute()
        finally:
            graph.capture_end()

    def replay() -> Choice:
        graph.replay()
        return choice

    return replay


@dataclass(frozen=True, slots=True)
class _Captured:
    buffers: DecodeBuffers
    replay: Replay


class DecodeGraphs:
    """The graphs of one model, each captured when its lane and bucket are first used.

    Args:
        decoder: The model.
        device: Where it is.
        width: Entries of a block table.
        spare: The block that padding writes to.
        buckets: Ascending; a batch takes the smallest that holds it.
        captures: One capture at a time, over all models; None runs the same steps eagerly.
    """

    def __init__(
        self,
        decoder: Decoder,
        device: torch.device,
        width: int,
        spare: int,
        buckets: tuple[int, ...],
        captures: threading.Lock | None,
    ) -> None:
        self._decoder = decoder
        self._device = device
        self._width = width
        self._spare = spare
        self._buckets = buckets
        self._captures = captures
        self._ready: dict[tuple[Lane, int], _Captured] = {}

    def holds(self, chunks: Sequence[Chunk]) -> bool:
        """Whether these chunks are a decode step with a bucket."""
        return len(chunks) <= self._buckets[-1] and all(
            len(chunk.token_ids) == 1 and chunk.sampling is not None for chunk in chunks
        )

    def run(self, chunks: Sequence[Chunk], lane: Lane) -> Choice:
        """One decode step; only the first rows of the choice mean something.

        The first step of a bucket runs eagerly, which readies libraries and workspaces on this
        thread, and is captured afterwards.
        """
        bucket = next(size for size in self._buckets if size >= len(chunks))
        layout = Layout(bucket, bucket, self._width)
        flat = pack(chunks, layout, self._spare)
        if captured := self._ready.get((lane, bucket)):
            captured.buffers.feed(flat)
            return captured.replay()
        buffers = DecodeBuffers(self._decoder, layout, lane, self._device)
        buffers.feed(flat)
        choice = buffers.compute()
        if self._captures is None:
            self._ready[lane, bucket] = _Captured(buffers, buffers.compute)
            return choice
        assert lane.stream is not None  # noqa: S101 - graphs are of streams
        lane.stream.synchronize()
        self._ready[lane, bucket] = _Captured(buffers, capture(buffers, lane, self._captures))
        return choice
