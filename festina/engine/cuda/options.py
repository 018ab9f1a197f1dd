"""How the GPU engine computes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from festina.engine.cuda.building import Kernels
from festina.engine.cuda.graph_plan import GraphRules


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine computes.

    Attributes:
        dtype: Of weights, activations and KV cache.
        kernels: Whose attention and small operations.
        graphs: Which decode steps are graphs, and when they are captured.
    """

    dtype: torch.dtype = torch.bfloat16
    kernels: Kernels = "device"
    graphs: GraphRules = field(default_factory=GraphRules)
