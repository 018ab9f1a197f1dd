"""The one thread of a process that computes; it wakes the main thread through a descriptor."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

Tag = TypeVar("Tag")


class ComputeThread(Generic[Tag]):
    """Runs jobs one after the other, in order. Used and closed by the main thread.

    One thread and no more: two spinning pools of arithmetic on the same cores make 25 ms steps
    take 700.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compute")
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._done: deque[tuple[Tag, Future[object]]] = deque()

    @property
    def wake_fd(self) -> int:
        """Readable when `collect` has something to give, and sometimes once when it has not."""
        return self._wake_fd

    def submit(self, tag: Tag, job: Callable[[], object]) -> None:
        """Queue a job; `collect` gives its outcome with `tag`."""

        def report(future: Future[object]) -> None:
            self._done.append((tag, future))
            os.eventfd_write(self._wake_fd, 1)

        self._executor.submit(job).add_done_callback(report)

    def collect(self) -> list[tuple[Tag, Future[object]]]:
        """Jobs that have ended since the last call, in order."""
        with suppress(BlockingIOError):  # an outcome may be here before its wake-up, or after it
            os.eventfd_read(self._wake_fd)
        ended = []
        while self._done:
            ended.append(self._done.popleft())
        return ended

    def close(self) -> None:
        """Wait for the job under way, drop the others."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        os.close(self._wake_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
