"""Talking to a festina cluster from a program with an asyncio event loop.

A shell around `ClientLogic`: sockets, a clock and the callers' queues are here and in `ClientLoop`,
decisions are there. Many requests may be in flight; all that run on one agent share one link.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self, Unpack

from festina.config import LinkConfig, SecurityConfig
from festina.messages import Cluster
from festina.runtime.client_loop import ClientLoop
from festina.runtime.generation import Collector, Completion, Options, TokenEvent, make_job
from festina.runtime.protocol.client_effects import ClientLimits, Counters
from festina.runtime.protocol.request import Event, Job
from festina.security.guard import build_guard


class AsyncStream:
    """The output of one request, as it comes. Leaving `async with` before the end cancels it."""

    def __init__(
        self, request_id: str, events: asyncio.Queue[Event], cancel: Callable[[str], None]
    ) -> None:
        self._collector = Collector(request_id)
        self._events = events
        self._cancel = cancel

    @property
    def request_id(self) -> str:
        """Names the request in logs and traces."""
        return self._collector.request_id

    async def __aiter__(self) -> AsyncIterator[TokenEvent]:
        """Pieces in order.

        Raises:
            FestinaError: The request ended with an error.
        """
        collector = self._collector
        while not collector.ended:
            piece = collector.take(await self._events.get())
            if piece is not None:
                yield piece
        if collector.error is not None:
            raise collector.error

    async def completion(self) -> Completion:
        """The whole output, when it has ended.

        Raises:
            FestinaError: The request ended with an error.
        """
        async for _ in self:
            pass
        return self._collector.result()

    def cancel(self) -> None:
        """Stop it; iteration raises `CancelledError`. Does nothing after the end."""
        self._cancel(self.request_id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()


class AsyncClient:
    """A client inside a running asyncio event loop.

    Args:
        endpoint: The scheduler's.
        standby_endpoint: Its standby's, where there is one.
        link: Heartbeats and bounds of sockets.
        limits: Bounds of requests.
        identity: File with this client's keys (`festina keys make`); "" for a cluster without.

    Raises:
        ConfigError: On entering: the endpoint or the file is wrong.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        standby_endpoint: str = "",
        link: LinkConfig = LinkConfig(),  # noqa: B008 (frozen)
        limits: ClientLimits = ClientLimits(),  # noqa: B008 (frozen)
        identity: str = "",
    ) -> None:
        self._endpoint = endpoint
        self._standby_endpoint = standby_endpoint
        self._security = SecurityConfig(identity=identity)
        self._link = link
        self._limits = limits
        self._loop: ClientLoop | None = None

    async def __aenter__(self) -> Self:
        guard = build_guard(self._security, binds=False)
        self._loop = ClientLoop(
            asyncio.get_running_loop(),
            self._endpoint,
            self._standby_endpoint,
            self._link,
            self._limits,
            random.Random(),
            guard,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        loop = self._open()
        self._loop = None
        await loop.close()

    @property
    def counters(self) -> Counters:
        """What went wrong on the wire so far."""
        return self._open().counters

    def generate(self, model: str, **options: Unpack[Options]) -> AsyncStream:
        """Start a request with exactly one of `prompt`, `turns` and `token_ids`.

        Args:
            model: Deployment name.
            options: See `Options`.

        Raises:
            BadRequestError: A field is wrong; it names which.
            FrameTooLargeError: The prompt is too long for one message.
            OverloadedError: Too many requests of this client are in flight.
        """
        job = make_job(model, options)
        events: asyncio.Queue[Event] = asyncio.Queue()
        self.start(job, events.put_nowait)
        return AsyncStream(job.submit.request_id, events, self.cancel)

    def start(self, job: Job, listener: Callable[[Event], None]) -> None:
        """Begin a request; `listener` hears of it until it has ended.

        Raises:
            OverloadedError: Too many requests of this client are in flight.
            BadRequestError: Its id is in flight.
        """
        self._open().start(job, listener)

    def cancel(self, request_id: str) -> None:
        """End a request; nothing happens if it has ended."""
        if self._loop is not None:
            self._loop.cancel(request_id)

    async def cluster(self) -> Cluster:
        """State of the cluster: deployments and agents.

        Raises:
            SchedulerLostError: The scheduler does not answer.
        """
        return await self._open().cluster()

    def _open(self) -> ClientLoop:
        if self._loop is None:
            raise RuntimeError("use the client inside its `with` block")
        return self._loop
