"""The choices of one call while they are generated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from festina.errors import FestinaError
from festina.gateway.metrics import Metrics
from festina.gateway.parameters import Call
from festina.gateway.watch import GatewayWatch
from festina.messages import Cluster
from festina.runtime.protocol.request import Ended, Event, Job


class Backend(Protocol):
    """What the gateway needs of festina's client (`AsyncClient`)."""

    def start(self, job: Job, listener: Callable[[Event], None]) -> None:
        """Begin a request; `listener` hears of it until it has ended."""

    def cancel(self, request_id: str) -> None:
        """End a request; nothing happens if it has ended."""

    async def cluster(self) -> Cluster:
        """State of the cluster."""


class Choices:
    """All requests of one call.

    Args:
        backend: Runs them.
        call: What to run.
        metrics: Hears how each ended.
        watch: Hears it too.

    Raises:
        FestinaError: They could not be started; none is left behind.
    """

    def __init__(self, backend: Backend, call: Call, metrics: Metrics, watch: GatewayWatch) -> None:
        self._backend = backend
        self._call = call
        self._metrics = metrics
        self._watch = watch
        self._began = time.monotonic()
        self._news: list[tuple[int, Event]] = []
        self._wanted: asyncio.Future[None] | None = None
        try:
            for index, job in enumerate(call.jobs):
                backend.start(job, partial(self._hear, index))
        except FestinaError as error:
            metrics.failed(call.model, error)
            watch.failed(call.model, call.id, error, 0.0)
            self.cancel()
            raise

    async def news(self) -> list[tuple[int, Event]]:
        """All that has happened since the last call, at least one event: (choice, event).

        One task at a time may wait.
        """
        while not self._news:
            self._wanted = asyncio.get_running_loop().create_future()
            await self._wanted
        news, self._news = self._news, []
        return news

    def cancel(self) -> None:
        """End all that have not ended; whoever waits for news hears of that."""
        for job in self._call.jobs:
            self._backend.cancel(job.submit.request_id)

    def _hear(self, index: int, event: Event) -> None:
        if isinstance(event, Ended):
            model, name, elapsed_s = self._about(index)
            self._metrics.ended(model, self._call.slo, event, elapsed_s)
            self._watch.ended(model, name, event, elapsed_s)
        elif isinstance(event, FestinaError):
            model, name, elapsed_s = self._about(index)
            self._metrics.failed(model, event)
            self._watch.failed(model, name, event, elapsed_s)
        self._news.append((index, event))
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    def _about(self, index: int) -> tuple[str, str, float]:
        """Model, name and age in seconds of a choice."""
        submit = self._call.jobs[index].submit
        return self._call.model, submit.request_id, time.monotonic() - self._began
