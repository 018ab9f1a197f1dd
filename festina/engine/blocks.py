"""Which KV blocks of one pool are taken; what is in them is the engine's affair."""

from __future__ import annotations

from collections.abc import Iterable


class BlockManager:
    """The free list of one KV pool.

    Every block is either free or handed out, never both: `free + taken == total`. Blocks given back
    last are handed out first, so that a lightly used pool touches little memory. Not thread-safe;
    owned by the agent's scheduling.

    Args:
        total: Blocks in the pool, ≥ 1; ids are 0 … total-1.

    Raises:
        ValueError: `total` is not positive.
    """

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"a KV pool of {total} blocks: expected at least one")
        self._total = total
        self._free = list(range(total - 1, -1, -1))
        self._taken: set[int] = set()

    @property
    def total(self) -> int:
        """Blocks in the pool."""
        return self._total

    @property
    def free(self) -> int:
        """Blocks not handed out."""
        return len(self._free)

    def allocate(self, count: int) -> list[int] | None:
        """Take `count` blocks.

        Returns:
            Their ids, or None when fewer are free; then nothing has changed.

        Raises:
            ValueError: `count` is negative.
        """
        if count < 0:
            raise ValueError(f"an allocation of {count} blocks: expected 0 or more")
        if count > len(self._free):
            return None
        blocks = [self._free.pop() for _ in range(count)]
        self._taken.update(blocks)
        return blocks

    def release(self, blocks: Iterable[int]) -> None:
        """Give blocks back.

        Raises:
            ValueError: One of them is not handed out, or is named twice; then nothing has changed.
        """
        returned = list(blocks)
        distinct = set(returned)
        if len(distinct) != len(returned) or not distinct <= self._taken:
            strangers = sorted(distinct - self._taken)
            raise ValueError(f"blocks {strangers or returned} are not handed out, or named twice")
        self._taken -= distinct
        self._free.extend(reversed(returned))
