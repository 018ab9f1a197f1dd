"""What steps look like by default: a CPU core is full long before a GPU is."""

from __future__ import annotations

from festina.config import AgentConfig
from festina.control.choice import LocalRules

_CPU = (32, 128)
_GPU = (256, 2048)
"""Sequences and prefill tokens of one step. Fewer would leave a GPU's SMs waiting for memory."""


def local_rules(agent: AgentConfig, kind: str) -> LocalRules:
    """The settings in force.

    Args:
        agent: Where 0 leaves the choice to the device.
        kind: Of the device (`Device.kind`): "cpu", or a GPU, simulated ones included.
    """
    batch_max, chunk_tokens = _CPU if kind == "cpu" else _GPU
    return LocalRules(
        agent.batch_max or batch_max,
        agent.chunk_tokens or chunk_tokens,
        agent.margin,
        agent.beta,
    )
