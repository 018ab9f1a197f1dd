"""KV blocks in and out of an agent's engine, for moves; on the compute thread, between steps."""

from __future__ import annotations

import numpy as np

from festina.engine.base import Engine
from festina.errors import EngineError
from festina.runtime.protocol.move_effects import ExportBlocks, Exported, ImportBlocks
from festina.runtime.shared_memory import KvRing, KvRingView


class KvMover:
    """Reads and writes blocks, and holds the memory that moves share. Not thread-safe.

    Args:
        engine: Whose blocks.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rings: dict[str, KvRing] = {}
        self._views: dict[str, KvRingView] = {}

    def export(self, effect: ExportBlocks) -> Exported:
        """Read blocks.

        Raises:
            EngineError: They cannot be read.
        """
        data = self._engine.export_blocks(effect.model, effect.blocks)
        if not effect.window:
            return Exported(data.shape[1], data.tobytes(), "")
        ring = self._rings.get(effect.key)
        if ring is None:
            ring = self._rings[effect.key] = KvRing(effect.window)
        ring.write(effect.first, data)
        return Exported(data.shape[1], b"", ring.path)

    def take(self, effect: ImportBlocks) -> None:
        """Write blocks.

        Raises:
            EngineError: They are of another size, or the memory that they are in is gone.
        """
        count = len(effect.blocks)
        if effect.memory:
            view = self._views.get(effect.key)
            if view is None:
                view = KvRingView(effect.memory, effect.window, effect.block_bytes)
                self._views[effect.key] = view
            data = view.read(effect.first, count)
        elif len(effect.data) == count * effect.block_bytes:
            data = np.frombuffer(effect.data, np.uint8).reshape(count, effect.block_bytes)
        else:
            raise EngineError(
                f"{len(effect.data)} bytes of KV cache",
                field="data",
                expected=f"{count} blocks of {effect.block_bytes}",
            )
        self._engine.import_blocks(effect.model, effect.blocks, data)

    def end(self, key: str) -> None:
        """A move is over: give its memory back."""
        for held in (self._rings.pop(key, None), self._views.pop(key, None)):
            if held is not None:
                held.close()

    def close(self) -> None:
        """All moves are over."""
        for key in [*self._rings, *self._views]:
            self.end(key)
