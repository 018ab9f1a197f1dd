"""KV blocks that move between simulated agents, by message or by memory that they share."""

from __future__ import annotations

import numpy as np

from festina.engine.simulated import SimulatedEngine
from festina.errors import EngineError
from festina.runtime.protocol.move_effects import ExportBlocks, Exported, ImportBlocks

Memory = dict[str, dict[int, bytes]]
"""Contents of places, by the path of what is shared and the number of the place."""


class SimulatedMover:
    """As `festina.runtime.agent_kv.KvMover`, in memory that dies with the agent.

    Args:
        engine: Whose blocks.
        memory: Of the host.
        epoch: Of the agent.
    """

    def __init__(self, engine: SimulatedEngine, memory: Memory, epoch: int) -> None:
        self._engine = engine
        self._memory = memory
        self._epoch = epoch
        self._paths: dict[str, str] = {}
        self._opened = 0

    def export(self, effect: ExportBlocks) -> Exported:
        """Read blocks.

        Raises:
            EngineError: They cannot be read.
        """
        data = self._engine.export_blocks(effect.model, effect.blocks)
        if not effect.window:
            return Exported(data.shape[1], data.tobytes(), "")
        if effect.key not in self._paths:
            self._opened += 1
            self._paths[effect.key] = f"/proc/{self._epoch}/fd/{self._opened}"
        path = self._paths[effect.key]
        places = self._memory.setdefault(path, {})
        for offset, block in enumerate(data):
            places[(effect.first + offset) % effect.window] = block.tobytes()
        return Exported(data.shape[1], b"", path)

    def take(self, effect: ImportBlocks) -> None:
        """Write blocks.

        Raises:
            EngineError: They are of another size, or the memory that they are in is gone.
        """
        count, data = len(effect.blocks), effect.data
        if effect.memory:
            places = self._memory.get(effect.memory)
            if places is None:
                raise EngineError("the memory is gone", field="memory")
            numbers = range(effect.first, effect.first + count)
            data = b"".join(places[number % effect.window] for number in numbers)
        blocks = np.frombuffer(data, np.uint8).reshape(count, effect.block_bytes)
        self._engine.import_blocks(effect.model, effect.blocks, blocks)

    def end(self, key: str) -> None:
        """A move is over."""
        self._memory.pop(self._paths.pop(key, ""), None)

    def close(self) -> None:
        """The agent is gone."""
        for key in list(self._paths):
            self.end(key)
