"""What is remembered of things that are over: so many of them, the oldest forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

REMEMBERED_MAX = 4096


class Remembered(Generic[Key, Value]):
    """A dictionary of at most `REMEMBERED_MAX` entries."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, Value] = OrderedDict()

    def put(self, key: Key, value: Value) -> None:
        """Remember; a newer value takes the place of an older one."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > REMEMBERED_MAX:
            self._entries.popitem(last=False)

    def get(self, key: Key) -> Value | None:
        """What is remembered of it."""
        return self._entries.get(key)

    def drop(self, key: Key) -> None:
        """Remember it no more."""
        self._entries.pop(key, None)
