"""KV blocks as they arrive from another agent: in order, checked, a bounded number at a time."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from festina.messages import KvBlocks


@dataclass(frozen=True, slots=True)
class Arrived:
    """Blocks to import.

    Attributes:
        first: Index of the first in the request.
        count: How many.
        block_bytes: Size of a block.
        data: Their contents; b"" where they are in shared memory.
        memory: Where that is.
    """

    first: int
    count: int
    block_bytes: int
    data: bytes
    memory: str


class BlockInbox:
    """Puts pieces together. What is out of order or damaged is dropped, and sent again.

    Args:
        window: Blocks that may be here and not yet imported.

    Attributes:
        accepted: Blocks that have arrived whole.
        imported: Blocks that are in the pool.
        importing: Blocks that are on their way into it.
    """

    def __init__(self, window: int) -> None:
        self.accepted = 0
        self.imported = 0
        self.importing = 0
        self._window = window
        self._block_bytes = 0
        self._memory = ""
        self._blocks: list[bytes] = []
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0

    def take(self, message: KvBlocks) -> bool:
        """A message of the source. False if it was dropped."""
        self._block_bytes = self._block_bytes or message.block_bytes
        if message.block_bytes != self._block_bytes:
            return False
        if message.memory:
            return self._take_shared(message)
        if message.first != self.accepted or self.accepted >= self.imported + self._window:
            return False
        if message.offset == 0:
            self._pieces, self._pieces_bytes = [], 0
        size = self._pieces_bytes + len(message.data)
        if message.offset != self._pieces_bytes or size > self._block_bytes or not message.data:
            return False
        if zlib.crc32(message.data) != message.checksum:
            return False
        self._pieces.append(message.data)
        self._pieces_bytes = size
        if size == self._block_bytes:
            self._blocks.append(b"".join(self._pieces))
            self._pieces, self._pieces_bytes = [], 0
            self.accepted += 1
        return True

    def next(self) -> Arrived | None:
        """Blocks to import now; one import at a time."""
        count = self.accepted - self.imported
        if self.importing or count == 0:
            return None
        self.importing = count
        data, self._blocks = b"".join(self._blocks), []
        return Arrived(self.imported, count, self._block_bytes, data, self._memory)

    def done(self) -> None:
        """What `next` gave is in the pool."""
        self.imported += self.importing
        self.importing = 0

    def _take_shared(self, message: KvBlocks) -> bool:
        if self._memory and message.memory != self._memory:
            return False
        end = message.first + message.count
        if not message.first <= self.accepted < end or end > self.imported + self._window:
            return False
        self._memory = message.memory
        self.accepted = end
        return True
