"""Decode steps as CUDA graphs: hundreds of small kernels for the price of one launch.

The nodes of a graph keep the SM partition of the stream that they were captured on, so there is one
graph per (lane, batch bucket), each with buffers at fixed addresses. Smaller batches are padded.
How many there may be, and when they are captured, is in graph_plan.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from festina.engine.base import Chunk
from festina.engine.cuda.batches import DeviceBatch, Layout, pack
from festina.engine.cuda.decoder import Decoder
from festina.engine.cuda.lanes import Lane


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
        rows_max: Sequences of the largest bucket that there will be, whose logits all others share.

    Attributes:
        sequences: Of the bucket.
    """

    def __init__(
        self, decoder: Decoder, layout: Layout, lane: Lane, device: torch.device, rows_max: int
    ) -> None:
        self.sequences = layout.sequences
        self._decoder = decoder
        pinned = lane.stream is not None
        self._staging = torch.zeros(layout.size, dtype=torch.int32, pin_memory=pinned)
        self._flat = torch.zeros(layout.size, dtype=torch.int32, device=device)
        self._batch = DeviceBatch(
            layout.fields(self._flat), singles=layout.sequences, sms=lane.partition.sms
        )
        self._out = lane.outputs(rows_max, decoder.config.vocabulary)[: layout.sequences]

    def feed(self, flat: NDArray[np.int32]) -> None:
        """Send the integers of a step on their way."""
        self._staging.numpy()[:] = flat
        self._flat.copy_(self._staging, non_blocking=True)

    def compute(self) -> Choice:
        """Give the step's kernels to the lane's stream."""
        self._out.copy_(self._decoder.logits(self._decoder.hidden(self._batch)))
        return Choice(self._out, self._out.argmax(-1))


Replay = Callable[[], Choice]

Capture = Callable[[DecodeBuffers, Lane], Replay]
"""Makes what computes a bucket's step again, on a lane that the calling thread has entered and
warmed."""


class GraphCapture:
    """Captures `DecodeBuffers.compute` as a CUDA graph.

    Other lanes may run meanwhile, but not capture: a lock sees to that. Nothing here waits for the
    device while it captures, which would be an error in another thread that does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, buffers: DecodeBuffers, lane: Lane) -> Replay:
        """See `Capture`."""
        assert lane.stream is not None  # noqa: S101 - graphs are of streams
        lane.stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with self._lock:
            graph.capture_begin(pool=lane.graph_pool, capture_error_mode="thread_local")
            try:
                choice = buffers.compute()
            finally:
                graph.capture_end()

        def replay() -> Choice:
            graph.replay()
            return choice

        return replay


def recompute(buffers: DecodeBuffers, _lane: Lane) -> Replay:
    """`Capture` where there are no graphs: the same padded step, eagerly."""
    return buffers.compute


@dataclass(frozen=True, slots=True)
class _Captured:
    buffers: DecodeBuffers
    replay: Replay


class DecodeGraphs:
    """The graphs of one model.

    Args:
        decoder: The model.
        device: Where it is.
        width: Entries of a block table.
        spare: The block that padding writes to.
        buckets: Ascending; a batch takes the smallest that holds it.
        capture: Makes them.
        late: How many may be captured by the steps that first need them; the others run eagerly.

    Attributes:
        width: Entries of a block table.
    """

    def __init__(
        self,
        decoder: Decoder,
        device: torch.device,
        width: int,
        spare: int,
        buckets: tuple[int, ...],
        capture: Capture,
        late: int,
    ) -> None:
        self._decoder = decoder
        self._device = device
        self.width = width
        self._spare = spare
        self._buckets = buckets
        self._capture = capture
        self._late = late
        self._admitting = threading.Lock()
        self._ready: dict[tuple[Lane, int], _Captured] = {}

    @property
    def late(self) -> int:
        """How many may still be captured."""
        return self._late

    def prepare(self, lane: Lane, buckets: Iterable[int]) -> None:
        """Capture these buckets on a lane that the calling thread has entered.

        Each runs once before, with nothing but padding, which readies libraries and workspaces. The
        largest is first: what it leaves in the lane's pool of memory is enough for the others.
        """
        for bucket in sorted(buckets, reverse=True):
            self._make(lane, bucket, pack([], self._layout(bucket), self._spare))

    def holds(self, chunks: Sequence[Chunk], lane: Lane) -> bool:
        """Whether these chunks are a decode step with a graph, or one that may have one."""
        if any(len(chunk.token_ids) > 1 or chunk.sampling is None for chunk in chunks):
            return False
        if not self._buckets or len(chunks) > self._buckets[-1]:
            return False
        return (lane, self._bucket_of(chunks)) in self._ready or self._admit()

    def run(self, chunks: Sequence[Chunk], lane: Lane) -> Choice:
        """One decode step that `holds`; only the first rows of the choice mean something.

        A step without a graph runs eagerly, and is captured afterwards.
        """
        bucket = self._bucket_of(chunks)
        flat = pack(chunks, self._layout(bucket), self._spare)
        if captured := self._ready.get((lane, bucket)):
            captured.buffers.feed(flat)
            return captured.replay()
        return self._make(lane, bucket, flat)

    def _make(self, lane: Lane, bucket: int, flat: NDArray[np.int32]) -> Choice:
        layout, rows_max = self._layout(bucket), self._buckets[-1]
        buffers = DecodeBuffers(self._decoder, layout, lane, self._device, rows_max)
        buffers.feed(flat)
        choice = buffers.compute()
        self._ready[lane, bucket] = _Captured(buffers, self._capture(buffers, lane))
        return choice

    def _admit(self) -> bool:
        """Takes one of those that may still be captured; steps on other lanes want some, too."""
        with self._admitting:
            admitted = self._late > 0
            self._late -= admitted
            return admitted

    def _bucket_of(self, chunks: Sequence[Chunk]) -> int:
        return next(size for size in self._buckets if size >= len(chunks))

    def _layout(self, bucket: int) -> Layout:
        return Layout(bucket, bucket, self.width)
