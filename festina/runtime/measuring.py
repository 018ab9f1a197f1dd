"""Settings of those who measure a device themselves, step by step."""

from __future__ import annotations

from msgspec.structs import replace

from festina.config import Config

GRAPHS_MAX = 256
"""More than there are partitions times batch sizes: whatever is measured has its graph."""


def measuring(config: Config) -> Config:
    """`config` with the engine in this process, as two steps at a time need it.

    Graphs are captured by the first step that needs them: which ones is not known when a model is
    loaded, and first steps are not counted.
    """
    agent = replace(
        config.agent, host_engine="inline", batch_max=0, graphs_max=GRAPHS_MAX, graphs_ahead=False
    )
    return replace(config, agent=agent)
