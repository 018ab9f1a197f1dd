"""Sockets that carry festina messages, every bound explicit (DESIGN section 5).

A process binds a ROUTER for those who come to it and connects a DEALER to those it goes to. Peers
of a ROUTER are named by the identities it gives them, so a peer that reconnects is a new peer.
What can go wrong with one peer (it is gone, it is too slow, it sends rubbish) is a result here and
never an exception: the process goes on serving the others.
"""

from __future__ import annotations

import enum
import ipaddress
import math
import re
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import zmq

from festina.config import LinkConfig
from festina.errors import ConfigError, ProtocolError
from festina.messages import FRAME_BYTES_MAX, AnyMessage, decode, encode

Received = tuple[bytes, AnyMessage | ProtocolError]
"""Who sent it (b"" on a DEALER), and what: a message, or why it is none."""

HANDSHAKE_MS = 2000
RECONNECT_MS = 20
RECONNECT_MS_MAX = 500
BACKLOG = 512

_ENDPOINT = re.compile(r"tcp://(?P<host>[^:/]+):(?P<port>[0-9]{1,5})")
_NOBLOCK = int(zmq.NOBLOCK)
_FIRST_PART = int(zmq.NOBLOCK | zmq.SNDMORE)


class Delivery(enum.Enum):
    """What became of a message that was handed to `Link.send`.

    `SENT` means queued for the peer: only an answer proves that it arrived.
    """

    SENT = "sent"
    FULL = "full"
    UNREACHABLE = "unreachable"


def check_endpoint(endpoint: str, field: str = "endpoint") -> str:
    """`endpoint` in the form that ZeroMQ takes.

    Args:
        endpoint: `tcp://HOST:PORT` with a loopback address; port 0 is chosen by the system.
        field: Setting to name in the error.

    Raises:
        ConfigError: It has another form, or an address beyond this machine, where anyone could
            send: such an address needs CURVE keys, which this version does not have.
    """
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or int(match["port"]) > 65535:
        raise ConfigError(
            f"{endpoint!r} is not an endpoint", field=field, expected="tcp://127.0.0.1:PORT"
        )
    host = "127.0.0.1" if match["host"] == "localhost" else match["host"]
    try:
        loopback = ipaddress.IPv4Address(host).is_loopback
    except ipaddress.AddressValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            f"{endpoint!r} can be reached from other machines and has no keys",
            field=field,
            expected="a loopback address, such as tcp://127.0.0.1:7000",
        )
    return f"tcp://{host}:{int(match['port'])}"


class Link:
    """One socket. Not thread-safe: the thread that made it uses and closes it."""

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str, *, routes: bool) -> None:
        self._socket = socket
        self._endpoint = endpoint
        self._routes = routes
        self._rejecting = False  # parts of a message that has been refused are still to come

    @classmethod
    def bind(cls, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, link: LinkConfig) -> Self:
        """A ROUTER at `endpoint`.

        Raises:
            ConfigError: The endpoint is not allowed, or in use.
        """
        address = check_endpoint(endpoint)
        socket = _socket(context, zmq.ROUTER, link)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.BACKLOG, BACKLOG)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise ConfigError(
                f"cannot listen at {address}: {error}", field="endpoint", expected="a free port"
            ) from error
        return cls(socket, socket.getsockopt_string(zmq.LAST_ENDPOINT), routes=True)

    @classmethod
    def connect(
        cls, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, link: LinkConfig
    ) -> Self:
        """A DEALER to `endpoint`; it connects, and reconnects, in the background.

        Raises:
            ConfigError: The endpoint is not allowed.
        """
        address = check_endpoint(endpoint)
        socket = _socket(context, zmq.DEALER, link)
        socket.connect(address)
        return cls(socket, address, routes=False)

    @property
    def endpoint(self) -> str:
        """Where it listens (with the port that was chosen), or what it is connected to."""
        return self._endpoint

    def fileno(self) -> int:
        """Descriptor for event loops. Edge-triggered: `receive` until empty after each `send`."""
        return self._socket.getsockopt(zmq.FD)  # type: ignore[return-value]

    def send(self, message: AnyMessage, peer: bytes = b"") -> Delivery:
        """Queue `message` without waiting.

        Args:
            message: What to send.
            peer: Identity that `receive` gave; ignored on a DEALER.

        Raises:
            FrameTooLargeError: The message exceeds `FRAME_BYTES_MAX`.
        """
        frame = encode(message)
        try:
            if self._routes:
                self._socket.send(peer, _FIRST_PART)
            self._socket.send(frame, _NOBLOCK)
        except zmq.Again:
            return Delivery.FULL
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return Delivery.UNREACHABLE
        return Delivery.SENT

    def receive(self, count_max: int) -> Iterator[Received]:
        """What has arrived, at most `count_max`, without waiting; read as it is asked for.

        That nothing came is told by an exception, which takes longer than reading a message. Most
        often one message comes alone, so after the first a look precedes the next attempt.

        A message of many parts is refused at its first; the others are dropped one by one, and each
        counts as a message here, so that no peer gets more than its turn. (ZeroMQ itself hands a
        message over when its last part has come, and until then holds its parts.)
        """
        for count in range(count_max):
            if count == 1 and not self.wait(0.0):
                return
            try:
                first = self._socket.recv(_NOBLOCK)
            except zmq.Again:
                return
            if self._rejecting:
                self._rejecting = bool(self._socket.getsockopt(zmq.RCVMORE))
            else:
                yield self._read(first)

    def wait(self, timeout_s: float) -> bool:
        """Whether something can be received, waiting up to `timeout_s` for it."""
        return wait((self,), timeout_s)

    def close(self) -> None:
        """Close; what is queued is sent for up to `LinkConfig.linger_ms` in the background."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, first: bytes) -> Received:
        """The rest of a message; its parts arrive together, so none is waited for."""
        socket = self._socket
        peer, frame = (first, socket.recv(_NOBLOCK)) if self._routes else (b"", first)
        if socket.getsockopt(zmq.RCVMORE):
            self._rejecting = True
            return peer, ProtocolError(
                "a message of many parts", field="frame", expected="one part"
            )
        try:
            return peer, decode(frame)
        except ProtocolError as error:
            return peer, error


def wait(sources: Sequence[Link | int], timeout_s: float) -> bool:
    """Whether any link or file descriptor can be read, waiting up to `timeout_s` for it."""
    watched = [
        (source._socket if isinstance(source, Link) else source, int(zmq.POLLIN))
        for source in sources
    ]
    milliseconds = max(0, math.ceil(timeout_s * 1000))  # rounding down would spin until it is due
    return bool(zmq.zmq_poll(watched, milliseconds))


def _socket(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, link: LinkConfig
) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    for option, value in (
        (zmq.SNDHWM, link.queue_max),
        (zmq.RCVHWM, link.queue_max),
        (zmq.MAXMSGSIZE, FRAME_BYTES_MAX),
        (zmq.LINGER, link.linger_ms),
        (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
        (zmq.RECONNECT_IVL, RECONNECT_MS),
        (zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX),
        (zmq.IPV6, 0),
    ):
        socket.setsockopt(option, value)
    return socket
