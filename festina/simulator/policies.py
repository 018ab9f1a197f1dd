"""Policies by name, as `csrc/core/simulator/policies/make.hpp` makes them, and their switches."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FESTINA = "festina"
"""Ours, against which ratios are formed."""

POLICIES: tuple[str, ...] = (
    FESTINA,
    "festina-paper",
    "serverlessllm",
    "muxserve",
    "dilu",
    "aegaeon",
    "aegvoltana",
)
"""In the order of reports."""

SWITCHES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "festina": (
            *("pace", "mix", "clocks", "below_knee", "raise", "hysteresis", "join_batches"),
            *("place", "parking", "consolidation", "forecast", "online_correction"),
        ),
        "festina-paper": ("operating_point", "local_priority", "consolidation"),
    }
)
"""Policy → improvements that an ablation can switch off. Of `festina` each is switched off alone;
of others they are a ladder, switched on one after the other."""
