"""A link to whichever of two schedulers serves, for a process that asks again and again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

import zmq

from festina.config import Config
from festina.errors import ProtocolError
from festina.messages import AnyMessage, Cluster
from festina.runtime.transport import Link, connect_scheduler, wait


class ServingLink:
    """Sends to the scheduler that serves, and changes to the other when it says that it does not.

    Args:
        links: To the scheduler and, where there is one, to its standby.
        patience_s: Silence after which the other one is tried.
        now: Seconds.
    """

    def __init__(self, links: tuple[Link, ...], patience_s: float, now: float) -> None:
        self._links = links
        self._patience_s = patience_s
        self._heard_at = now

    @classmethod
    @contextmanager
    def connect(
        cls,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        config: Config,
        now: float,
    ) -> Iterator[Self]:
        """Links by the settings.

        Raises:
            ConfigError: An endpoint is not allowed.
        """
        standby = config.scheduler.standby_endpoint
        with ExitStack() as stack:
            links = tuple(
                stack.enter_context(connect_scheduler(context, each, config))
                for each in (endpoint, *((standby,) if standby else ()))
            )
            yield cls(links, config.link.heartbeat_s * config.link.missed_max, now)

    @property
    def endpoint(self) -> str:
        """Of the one that is asked now."""
        return self._links[0].endpoint

    def send(self, message: AnyMessage, now: float) -> None:
        """To the one that serves, as far as is known."""
        if now - self._heard_at >= self._patience_s:
            self._change(now)
        self._links[0].send(message)

    def wait(self, timeout_s: float) -> bool:
        """Whether something can be received, waiting up to `timeout_s` for it."""
        return wait(self._links, timeout_s)

    def receive(self, count_max: int, now: float) -> list[AnyMessage]:
        """What the one that serves has said, at most `count_max` messages."""
        for link in self._links[1:]:
            for _ in link.receive(count_max):
                pass  # late words of one that was asked before
        said: list[AnyMessage] = []
        for _, message in self._links[0].receive(count_max):
            if isinstance(message, ProtocolError):
                continue
            if isinstance(message, Cluster) and not message.serves:
                self._change(now)
                break
            self._heard_at = now
            said.append(message)
        return said

    def _change(self, now: float) -> None:
        self._links = (*self._links[1:], self._links[0])
        self._heard_at = now
