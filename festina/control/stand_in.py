"""A profile for a model that has none on a device: a profiled model's, scaled by size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from festina.control.profile_csv import SOURCES, Grid, ModelProfile
from festina.types import Provenance

SPREAD = 0.25
"""Relative error assumed of a scaled latency; placement keeps a margin that follows it."""


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """What is known of a model without running it.

    Attributes:
        weight_bytes: Memory of the weights.
        kv_bytes_per_token: Memory of one token's keys and values.
        context_tokens: Longest prompt plus output.
    """

    weight_bytes: int
    kv_bytes_per_token: int
    context_tokens: int


def stand_in(profiles: Sequence[ModelProfile], model: str, sizes: ModelSizes) -> ModelProfile:
    """A modelled profile of `model`, from the profile that is nearest to it in size.

    A step's arithmetic and the weights it reads grow alike with the number of weights, so its
    latency is scaled by the ratio of weight bytes; rates and power stay.

    Args:
        profiles: Of one device kind, at least one.
        model: Name of the new profile.
        sizes: Sizes of the model.
    """
    nearest = min(
        profiles,
        key=lambda profile: max(
            profile.info.weight_bytes / sizes.weight_bytes,
            sizes.weight_bytes / profile.info.weight_bytes,
        ),
    )
    factor = sizes.weight_bytes / nearest.info.weight_bytes
    return replace(
        nearest,
        info=msgspec.structs.replace(
            nearest.info,
            model=model,
            weight_bytes=sizes.weight_bytes,
            kv_bytes_per_token=sizes.kv_bytes_per_token,
            context_tokens=sizes.context_tokens,
            load_ms=nearest.info.load_ms * factor,
            made_by=f"scaled from {nearest.info.model}",
        ),
        prefill=_scaled(nearest.prefill, factor),
        decode=_scaled(nearest.decode, factor),
    )


def _scaled(grid: Grid, factor: float) -> Grid:
    cells = grid.cells.copy()
    cells["latency_ms"] *= factor
    cells["spread"] = SPREAD
    cells["samples"] = 0
    cells["source"] = SOURCES.index(Provenance.MODELLED.value)
    return replace(grid, cells=cells)
