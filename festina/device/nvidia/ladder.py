"""SM partitions of one GPU: green contexts, made once by the process that runs its models.

A ladder is rung 0, the whole device, and pairs of disjoint halves. Which rung a step runs on is
chosen by its stream; nothing is made or destroyed after the start. What the driver gives is read
back and never supposed: it rounds up to its own granularity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from festina.errors import DeviceError
from festina.types import SmPartition

SMS_APART = 16
"""From one rung to the next: 16, 32 … 112 and the whole of an H100."""


class Contexts(Protocol):
    """`festina._core.GreenContexts`."""

    @property
    def rungs(self) -> list[list[int]]:
        """SMs of each half of each rung, as read back from the driver."""

    @property
    def current(self) -> int:
        """The rung that work goes to."""

    def streams(self, rung: int, side: int) -> list[int]:
        """CUstream addresses of one half."""

    def switch_to(self, rung: int) -> None:
        """Work on the streams of `rung` starts after all that was given to the rung before."""


class SmLadder:
    """The partitions of one GPU and their streams. Not thread-safe: one engine owns it.

    The streams are void once the last reference to the ladder is gone; wait for their work before.

    Args:
        contexts: Made by this process.

    Attributes:
        partitions: Whole device first, then both halves of each rung.

    Raises:
        DeviceError: The driver made two halves that cannot be disjoint.
    """

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self.partitions = _partitions(contexts.rungs)

    @property
    def current(self) -> int:
        """The rung that work goes to."""
        return self._contexts.current

    def streams(self, partition: SmPartition) -> tuple[int, ...]:
        """CUstream addresses of a partition.

        Raises:
            DeviceError: It is not of this ladder.
        """
        self._require(partition)
        return tuple(self._contexts.streams(partition.rung, partition.side))

    def switch_to(self, rung: int) -> None:
        """From now on work goes to a rung; it starts after what the rung before was given.

        Raises:
            DeviceError: There is no such rung.
        """
        self._require(next((one for one in self.partitions if one.rung == rung), None))
        self._contexts.switch_to(rung)

    def _require(self, partition: SmPartition | None) -> None:
        if partition not in self.partitions:
            raise DeviceError(
                "the ladder has no such partition",
                field="partition",
                expected=f"one of {self.partitions}",
            )


def ladder_sms(sms_total: int, sms_min: int, sms_step: int, apart: int = SMS_APART) -> list[int]:
    """The least SMs of the first half of each rung: every `apart` SMs, as far as the second goes.

    They are the SM axis of profiles (`festina.device.physics` has the same), for which the second
    halves need not be measured: each is little more than the first half of another rung.

    Args:
        sms_total: SMs of the device.
        sms_min: Of the smallest partition.
        sms_step: From one size to the next; 0 where there is one size.
        apart: SMs from one rung to the next.
    """
    if sms_min < 1 or 2 * sms_min > sms_total:
        return []
    if sms_step < 1:
        return [sms_min]
    wanted = range(apart, sms_total - sms_min + 1, apart)
    sizes = {sms_min + max(0, -(-(sms - sms_min) // sms_step)) * sms_step for sms in wanted}
    return sorted(size for size in sizes or {sms_min} if size <= sms_total - sms_min)


def _partitions(rungs: Sequence[Sequence[int]]) -> tuple[SmPartition, ...]:
    ((sms_total,), *pairs) = rungs
    for rung, sides in enumerate(pairs, start=1):
        if sum(sides) > sms_total:
            raise DeviceError(
                f"rung {rung} has {sides} of {sms_total} SMs",
                field="partitions",
                expected="two halves that share none",
            )
    return (
        SmPartition(rung=0, sms=sms_total),
        *(
            SmPartition(rung=rung, sms=sms, side=side)
            for rung, sides in enumerate(pairs, start=1)
            for side, sms in enumerate(sides)
        ),
    )
