"""A bound on how long a client may leave its stream unread."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Message, Send


class Patience:
    """Inside `async with`, a `send` that takes longer than `stall_s` ends the block.

    A timer for each chunk would cost as much as the chunk: here is one for the whole stream, which
    looks when the send that is under way would be due, or again later if there is none.

    Args:
        send: Waits while the client does not read.
        stall_s: How long it may.

    Raises:
        TimeoutError: On leaving: it took longer.
    """

    def __init__(self, send: Send, stall_s: float) -> None:
        self._send = send
        self._stall_s = stall_s
        self._since: float | None = None
        self._limit = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    async def send(self, message: Message) -> None:
        """Send, within the bound."""
        self._since = self._loop.time()
        await self._send(message)
        self._since = None

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        self._timer = self._loop.call_later(self._stall_s, self._look)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._limit.__aexit__(kind, error, trace)

    def _look(self) -> None:
        now = self._loop.time()
        due = self._stall_s + (now if self._since is None else self._since)
        if due <= now:
            self._limit.reschedule(now)
        else:
            self._timer = self._loop.call_at(due, self._look)
