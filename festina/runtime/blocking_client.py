"""Talking to a festina cluster from a program without an event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from festina.config import LinkConfig
from festina.messages import Cluster
from festina.runtime.client import AsyncClient
from festina.runtime.generation import Collector, Completion, Options, TokenEvent, make_job
from festina.runtime.protocol.client_effects import ClientLimits, Counters
from festina.runtime.protocol.request import Event, Job

CALL_TIMEOUT_S = 30.0
"""Bound of calls into the client's thread; all they wait for has smaller bounds."""

T = TypeVar("T")


class Stream:
    """The output of one request, as it comes. Leaving `with` before the end cancels it."""

    def __init__(
        self,
        request_id: str,
        events: queue.SimpleQueue[Event],
        cancel: Callable[[str], None],
    ) -> None:
        self._collector = Collector(request_id)
        self._events = events
        self._cancel = cancel

    @property
    def request_id(self) -> str:
        """Names the request in logs and traces."""
        return self._collector.request_id

    def __iter__(self) -> Iterator[TokenEvent]:
        """Pieces in order.

        Raises:
            FestinaError: The request ended with an error.
        """
        collector = self._collector
        while not collector.ended:
            piece = collector.take(self._events.get())
            if piece is not None:
                yield piece
        if collector.error is not None:
            raise collector.error

    def completion(self) -> Completion:
        """The whole output, when it has ended.

        Raises:
            FestinaError: The request ended with an error.
        """
        for _ in self:
            pass
        return self._collector.result()

    def cancel(self) -> None:
        """Stop it; iteration raises `CancelledError`. Does nothing after the end."""
        self._cancel(self.request_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()


class Client:
    """A client for programs without an event loop; it keeps one on a thread of its own.

    Thread-safe inside its `with` block: each thread may have streams of its own.

    Args:
        endpoint: The scheduler's.
        standby_endpoint: Its standby's, where there is one.
        link: Heartbeats and bounds of sockets.
        limits: Bounds of requests.
        identity: File with this client's keys (`festina keys make`); "" for a cluster without.
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
        self._client = AsyncClient(
            endpoint,
            standby_endpoint=standby_endpoint,
            link=link,
            limits=limits,
            identity=identity,
        )
        self._events: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._events = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._events.run_forever, name="festina-client", daemon=True
        )
        self._thread.start()
        try:
            self._call(self._client.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._call(self._client.__aexit__(kind, error, trace))
        finally:
            self._stop()

    @property
    def counters(self) -> Counters:
        """What went wrong on the wire so far."""
        return self._client.counters

    def generate(self, model: str, **options: Unpack[Options]) -> Stream:
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
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._call(self._start(job, events))
        return Stream(job.submit.request_id, events, self._cancel)

    def cluster(self) -> Cluster:
        """State of the cluster: deployments and agents.

        Raises:
            SchedulerLostError: The scheduler does not answer.
        """
        return self._call(self._client.cluster())

    async def _start(self, job: Job, events: queue.SimpleQueue[Event]) -> None:
        self._client.start(job, events.put)

    def _cancel(self, request_id: str) -> None:
        if self._events is not None:
            self._events.call_soon_threadsafe(self._client.cancel, request_id)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._events is None:
            work.close()
            raise RuntimeError("use the client inside its `with` block")
        return asyncio.run_coroutine_threadsafe(work, self._events).result(CALL_TIMEOUT_S)

    def _stop(self) -> None:
        events, self._events = self._events, None
        if events is not None and self._thread is not None:
            events.call_soon_threadsafe(events.stop)
            self._thread.join()
            events.close()
