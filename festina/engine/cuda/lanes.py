"""Where steps run: one lane per SM partition, with its own stream.

A lane is entered by one thread at a time. PyTorch keeps cuBLAS handles per thread and workspaces
per (handle, stream), so no two lanes share either; memory pools of graphs are per lane. Streams of
green contexts come from the ladder, which must outlive the lanes: they keep it. Copies of KV blocks
have a stream of the smallest partition, so that no more SMs than it has are ever kept from steps.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch

from festina.engine.cuda.blas import limit_sms
from festina.errors import DeviceError, EngineError
from festina.types import SmPartition

STEPS_STREAM = 0
"""Which of a partition's streams is its lane's; the next one of the smallest is for copies."""


class Ladder(Protocol):
    """Partitions and their streams (`festina.device.nvidia.ladder.SmLadder`)."""

    @property
    def partitions(self) -> tuple[SmPartition, ...]:
        """Whole device first, then both halves of each rung."""

    def streams(self, partition: SmPartition) -> tuple[int, ...]:
        """CUstream addresses of a partition."""


def copy_stream(ladder: Ladder) -> tuple[SmPartition, int]:
    """Where KV blocks are copied: the smallest partition, and a stream of it that no lane has.

    Raises:
        DeviceError: The ladder has one stream for each partition, and lanes need that.
    """
    partition = min(ladder.partitions, key=lambda one: (one.sms, one.rung, one.side))
    streams = ladder.streams(partition)
    if len(streams) <= STEPS_STREAM + 1:
        raise DeviceError(
            "a ladder without streams for copies", field="streams", expected="two or more"
        )
    return partition, streams[STEPS_STREAM + 1]


class Lane:
    """One partition. Steps on it run one after the other; a thread that comes second waits.

    Args:
        partition: SMs of its own.
        stream: Of its green context; None on a CPU.

    Attributes:
        graph_pool: Memory that all graphs of this lane share, as they never run together.
    """

    def __init__(self, partition: SmPartition, stream: torch.cuda.Stream | None) -> None:
        self.partition = partition
        self.stream = stream
        self.graph_pool = None if stream is None else torch.cuda.graph_pool_handle()
        self._lock = threading.Lock()
        self._outputs: dict[int, torch.Tensor] = {}

    @contextmanager
    def entered(self) -> Iterator[None]:
        """What the calling thread gives to the device runs here, until the block ends."""
        with self._lock:
            if self.stream is None:
                yield
                return
            with torch.cuda.stream(self.stream):
                limit_sms(self.partition.sms)
                yield

    def outputs(self, rows: int, vocabulary: int) -> torch.Tensor:
        """Room for logits, float32 (rows, vocabulary), which all graphs of this lane share."""
        if vocabulary not in self._outputs or len(self._outputs[vocabulary]) < rows:
            device = None if self.stream is None else self.stream.device
            self._outputs[vocabulary] = torch.empty((rows, vocabulary), device=device)
        return self._outputs[vocabulary][:rows]


class Lanes:
    """All lanes of a device.

    Args:
        lanes: One per partition.
        ladder: Owns their streams; kept alive.
    """

    def __init__(self, lanes: Sequence[Lane], ladder: Ladder | None = None) -> None:
        self._lanes = {lane.partition: lane for lane in lanes}
        self._ladder = ladder

    @classmethod
    def on_gpu(cls, ladder: Ladder, ordinal: int) -> Lanes:
        """A lane for each partition of a GPU."""
        lanes = [
            Lane(one, torch.cuda.ExternalStream(ladder.streams(one)[STEPS_STREAM], ordinal))
            for one in ladder.partitions
        ]
        return cls(lanes, ladder)

    @classmethod
    def on_cpu(cls, *partitions: SmPartition) -> Lanes:
        """Lanes without streams: work is done when the call returns."""
        return cls([Lane(one, None) for one in partitions or (SmPartition(rung=0, sms=1),)])

    def __iter__(self) -> Iterator[Lane]:
        """All of them: the whole device first, then its partitions."""
        return iter(self._lanes.values())

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def sms(self) -> int:
        """SMs of the whole device."""
        return next(iter(self)).partition.sms

    def of(self, partition: SmPartition) -> Lane:
        """The lane of a partition.

        Raises:
            EngineError: The device has no such partition.
        """
        try:
            return self._lanes[partition]
        except KeyError:
            raise EngineError(
                f"no partition {partition}",
                field="partition",
                expected=f"one of {list(self._lanes)}",
            ) from None
