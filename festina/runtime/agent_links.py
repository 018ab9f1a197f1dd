"""An agent's sockets to other agents, which it gives requests to."""

from __future__ import annotations

from collections.abc import Iterator

import zmq

from festina.config import LinkConfig
from festina.errors import ConfigError
from festina.messages import AnyMessage
from festina.runtime.transport import Link, Received
from festina.security.guard import Guard


class AgentLinks:
    """Links by the endpoint that they go to. A message that cannot be queued counts as lost.

    Args:
        context: ZeroMQ's.
        link: Bounds.
        guard: Keys to prove; None without keys.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], link: LinkConfig, guard: Guard | None
    ) -> None:
        self._context = context
        self._config = link
        self._guard = guard
        self._links: dict[str, Link] = {}

    @property
    def links(self) -> tuple[Link, ...]:
        """To wait for."""
        return tuple(self._links.values())

    def connect(self, endpoint: str, server_key: str) -> None:
        """Open a link. An endpoint that is not allowed stays silent, as a dead agent would."""
        try:
            link = Link.connect(self._context, endpoint, self._config, self._guard, server_key)
        except ConfigError:
            return
        self._links[endpoint] = link

    def disconnect(self, endpoint: str) -> None:
        """Close a link."""
        link = self._links.pop(endpoint, None)
        if link is not None:
            link.close()

    def send(self, endpoint: str, message: AnyMessage) -> None:
        """Send, if there is a link and room."""
        link = self._links.get(endpoint)
        if link is not None:
            link.send(message)

    def receive(self, count_max: int) -> Iterator[tuple[str, Received]]:
        """What has arrived: the endpoint it is from, and what."""
        for endpoint, link in list(self._links.items()):
            for received in link.receive(count_max):
                yield endpoint, received

    def close(self) -> None:
        """Close all; what is queued is sent for a bounded time."""
        for endpoint in list(self._links):
            self.disconnect(endpoint)
