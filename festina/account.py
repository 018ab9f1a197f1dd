"""What an agent adds up over its life and tells now and then, for those who watch the cluster."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from festina.types import COUNT_MAX, Count

ACCOUNT_S = 1.0
"""How often an agent tells its account; its other summaries are without."""
MODELS_MAX = 256
"""Models that are told apart on one device; the energy of those that come later is one sum."""
OTHERS = "(others)"
"""The name of that sum; no deployment can have it."""
WAKE_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0)
"""Upper bounds of the buckets of wakes; the last one has none."""

Joules = Annotated[float, Meta(ge=0)]


class ModelEnergy(msgspec.Struct, frozen=True, array_like=True):
    """What requests of one deployment used on one device (DESIGN 4.4).

    Attributes:
        model: Deployment name, or `OTHERS`.
        prefill_j: Joules of steps over prompts, and of the device while such requests were there.
        decode_j: The same of steps that give one token each.
    """

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    prefill_j: Joules
    decode_j: Joules


MoveKind = Literal["copy", "recompute"]
MoveOutcome = Literal["moved", "kept", "ended", "lost"]


class MoveCount(msgspec.Struct, frozen=True, array_like=True):
    """How many moves away from a device ended in one way.

    Attributes:
        kind: Its KV cache was copied, or its tokens were to be prefilled again.
        outcome: It goes on elsewhere ("moved"), goes on here ("kept"), had ended before ("ended"),
            or nobody can tell what became of it, and its client was told ("lost").
        count: Since the agent started.
    """

    kind: MoveKind
    outcome: MoveOutcome
    count: Count


class WakeTimes(msgspec.Struct, frozen=True, array_like=True):
    """How long wakes took, from the wish until models could be loaded.

    Attributes:
        counts: Of each bucket of `WAKE_S`, and of those above; () before the first.
        sum_s: Of all.
    """

    counts: Annotated[tuple[Count, ...], Meta(max_length=len(WAKE_S) + 1)] = ()
    sum_s: Annotated[float, Meta(ge=0)] = 0.0


class Account(msgspec.Struct, frozen=True, array_like=True):
    """One agent since it started. Nothing in it falls.

    Attributes:
        idle_j: What the device used while no request was there.
        energy: What requests used; with `idle_j` all that the device used, up to its sensor's lag.
        moves: Requests that were to go to other agents.
        wakes: Of a parked device.
        clock_saved_j: Joules that lower clocks than the highest saved, as the profile has it:
            modelled. Negative where the profile says that they cost.
        lost_events: Events that are missing in the trace, whose disk was full or slow.
    """

    idle_j: Joules = 0.0
    energy: Annotated[tuple[ModelEnergy, ...], Meta(max_length=MODELS_MAX)] = ()
    moves: Annotated[tuple[MoveCount, ...], Meta(max_length=8)] = ()
    wakes: WakeTimes = WakeTimes()
    clock_saved_j: Annotated[float, Meta(ge=-COUNT_MAX, le=COUNT_MAX)] = 0.0
    lost_events: Count = 0
