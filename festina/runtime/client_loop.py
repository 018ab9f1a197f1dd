"""The shell around `ClientLogic`: sockets and timers of one client on an asyncio event loop."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import zmq

from festina.config import LinkConfig
from festina.errors import ConfigError, FestinaError, SchedulerLostError
from festina.messages import AnyMessage, Cluster
from festina.runtime.failpoints import failpoint
from festina.runtime.protocol.client import ClientLogic
from festina.runtime.protocol.client_effects import (
    SCHEDULER,
    STANDBY,
    ClientLimits,
    Connect,
    Counters,
    Disconnect,
    Effect,
    Tell,
    TellCluster,
)
from festina.runtime.protocol.effects import Send
from festina.runtime.protocol.request import Ended, Event, Job
from festina.runtime.transport import Link, Watch, check_endpoint
from festina.security.guard import Guard

READ_MAX = 256
"""Messages read from one link before what hangs on the clock is judged."""

TURN_MAX = 4
"""Messages read from one link before others, and the listeners' tasks, get their turn: a step's
tokens come in a burst, and its first ones need not wait until the last ones have been read."""

Listener = Callable[[Event], None]


class ClientLoop:
    """All links of one client. Not thread-safe: lives on the loop's thread.

    Args:
        loop: Event loop that this client runs on.
        endpoint: The scheduler's.
        standby_endpoint: Its standby's; "" has none.
        link: Heartbeats and bounds of sockets.
        limits: Bounds of requests.
        rng: Spreads pauses before retries.
        guard: Keys to prove; None where sockets have none.

    Raises:
        ConfigError: The endpoint is not allowed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: str,
        standby_endpoint: str,
        link: LinkConfig,
        limits: ClientLimits,
        rng: random.Random,
        guard: Guard | None = None,
    ) -> None:
        schedulers = {SCHEDULER: endpoint}
        if standby_endpoint:
            schedulers[STANDBY] = standby_endpoint
        for each in schedulers.values():
            check_endpoint(each, guarded=guard is not None)
        self._loop = loop
        self._config = link
        self._guard = guard
        self._logic = ClientLogic(link, limits, rng, standby=bool(standby_endpoint))
        self._schedulers = frozenset(schedulers)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._links: dict[bytes, Link] = {}
        self._watches: dict[bytes, Watch] = {}
        self._reading: set[bytes] = set()
        self._listeners: dict[str, Listener] = {}
        self._cluster: list[asyncio.Future[Cluster]] = []
        self._timer: asyncio.TimerHandle | None = None
        for peer, each in schedulers.items():
            self._connect(peer, each, "" if guard is None else guard.scheduler_key)

    @property
    def counters(self) -> Counters:
        """What went wrong on the wire so far."""
        return self._logic.counters

    def start(self, job: Job, listener: Listener) -> None:
        """Begin a request; `listener` hears of it until it has ended.

        Raises:
            OverloadedError: Too many requests are in flight.
            BadRequestError: Its id is in flight.
        """
        effects = self._logic.start(job, time.monotonic())
        self._listeners[job.submit.request_id] = listener
        self._apply(effects)

    def cancel(self, request_id: str) -> None:
        """End a request; nothing happens if it has ended."""
        self._apply(self._logic.cancel(request_id, time.monotonic()))

    async def cluster(self) -> Cluster:
        """State of the cluster.

        Raises:
            SchedulerLostError: The scheduler does not answer.
        """
        future: asyncio.Future[Cluster] = self._loop.create_future()
        self._cluster.append(future)
        self._apply(self._logic.ask_cluster(time.monotonic()))
        return await future

    async def close(self) -> None:
        """Cancel all requests, then close all links; what is queued is sent for a bounded time."""
        self._apply(self._logic.close(time.monotonic()))
        self._tell_cluster(SchedulerLostError("the client was closed"))
        if self._timer is not None:
            self._timer.cancel()
        for peer in list(self._links):
            self._disconnect(peer)
        await self._loop.run_in_executor(None, self._context.term)

    def _apply(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(_, peer, message):
                    self._send(peer, message)
                case Tell(request_id, event):
                    self._tell(request_id, event)
                case TellCluster(answer):
                    self._tell_cluster(answer)
                case Connect(endpoint, server_key):
                    self._connect_agent(endpoint, server_key)
                case Disconnect(endpoint):
                    self._disconnect(endpoint.encode())
        self._set_timer()

    def _send(self, peer: bytes, message: AnyMessage) -> None:
        """A full queue loses the message, which the logic's timers mend."""
        link = self._links.get(peer)
        if link is not None:
            failpoint("client.send", message)
            link.send(message)
            self._read_soon(peer)

    def _tell(self, request_id: str, event: Event) -> None:
        listener = self._listeners[request_id]
        if isinstance(event, Ended | FestinaError):
            del self._listeners[request_id]
        listener(event)

    def _tell_cluster(self, answer: Cluster | FestinaError) -> None:
        waiting, self._cluster = self._cluster, []
        for future in waiting:
            if future.done():
                continue
            if isinstance(answer, Cluster):
                future.set_result(answer)
            else:
                future.set_exception(answer)

    def _connect(self, peer: bytes, endpoint: str, server_key: str) -> None:
        link = Link.connect(self._context, endpoint, self._config, self._guard, server_key)
        self._links[peer] = link
        self._loop.add_reader(link.fileno(), self._read_soon, peer)
        watch = self._watches[peer] = link.watch()
        self._loop.add_reader(watch.fileno(), self._look, peer)

    def _connect_agent(self, endpoint: str, server_key: str) -> None:
        try:
            self._connect(endpoint.encode(), endpoint, server_key)
        except ConfigError as error:
            now = time.monotonic()
            self._apply(self._logic.on_connect_failed(endpoint, error, now))

    def _look(self, peer: bytes) -> None:
        """A process that is killed is noticed at once, not by its missing heartbeats.

        What had arrived before the connection broke is read first.
        """
        if not self._watches[peer].broke():
            return
        while peer in self._links and self._read(peer, READ_MAX) == READ_MAX:
            pass
        now = time.monotonic()
        if peer in self._schedulers:
            self._apply(self._logic.on_scheduler_closed(now))
        elif peer in self._links:
            self._apply(self._logic.on_closed(peer.decode(), now))

    def _disconnect(self, peer: bytes) -> None:
        watch = self._watches.pop(peer)
        self._loop.remove_reader(watch.fileno())
        watch.close()
        link = self._links.pop(peer)
        self._loop.remove_reader(link.fileno())
        link.close()

    def _read_soon(self, peer: bytes) -> None:
        """The descriptor tells of an edge only: a send may have used it up, so look after each."""
        if peer not in self._reading:
            self._reading.add(peer)
            self._loop.call_soon(self._read, peer)

    def _read(self, peer: bytes, count_max: int = TURN_MAX) -> int:
        """Pass on what has arrived; how many messages that were, at most `count_max`."""
        self._reading.discard(peer)
        link = self._links.get(peer)
        if link is None:
            return 0
        now = time.monotonic()
        read = 0
        for _, message in link.receive(count_max):
            read += 1
            failpoint("client.receive", message)
            self._apply(self._logic.on_message(peer, message, now))
            if peer not in self._links:
                break
        if read == count_max:
            self._read_soon(peer)
        return read

    def _set_timer(self) -> None:
        if self._timer is not None:
            return
        now = time.monotonic()
        due = self._logic.next_timer(now)
        if due is not None:
            self._timer = self._loop.call_later(due - now, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        for peer in list(self._links):
            self._read(peer, READ_MAX)
        self._apply(self._logic.on_timer(time.monotonic()))
