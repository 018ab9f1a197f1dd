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

from festina.config import Config, LinkConfig
from festina.errors import ConfigError, ProtocolError
from festina.messages import FRAME_BYTES_MAX, AnyMessage, decode, encode
from festina.security.guard import Guard, build_guard

Received = tuple[bytes, AnyMessage | ProtocolError]
"""Who sent it (b"" on a DEALER), and what: a message, or why it is none."""

HANDSHAKE_MS = 2000
RECONNECT_MS = 20
RECONNECT_MS_MAX = 100
BACKLOG = 512

_ENDPOINT = re.compile(r"tcp://(?P<host>[A-Za-z0-9._-]{1,253}):(?P<port>[0-9]{1,5})")
_NOBLOCK = int(zmq.NOBLOCK)
_FIRST_PART = int(zmq.NOBLOCK | zmq.SNDMORE)


class Delivery(enum.Enum):
    """What became of a message that was handed to `Link.send`.

    `SENT` means queued for the peer: only an answer proves that it arrived.
    """

    SENT = "sent"
    FULL = "full"
    UNREACHABLE = "unreachable"


def check_endpoint(endpoint: str, field: str = "endpoint", *, guarded: bool = False) -> str:
    """`endpoint` in the form that ZeroMQ takes.

    Args:
        endpoint: `tcp://HOST:PORT`; port 0 is chosen by the system. HOST is a loopback address, or
            any IPv4 address or name where keys guard the socket.
        field: Setting to name in the error.
        guarded: Peers must prove their keys.

    Raises:
        ConfigError: It has another form, or an address beyond this machine without keys, where
            anyone could send.
    """
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or int(match["port"]) > 65535:
        raise ConfigError(
            f"{endpoint!r} is not an endpoint", field=field, expected="tcp://127.0.0.1:PORT"
        )
    host = "127.0.0.1" if match["host"] == "localhost" else match["host"]
    if not guarded and not is_loopback(host):
        raise ConfigError(
            f"{endpoint!r} can be reached from other machines and has no keys",
            field=field,
            expected="a loopback address, such as tcp://127.0.0.1:7000, or `festina keys`",
        )
    return f"tcp://{host}:{int(match['port'])}"


def is_loopback(host: str) -> bool:
    """Whether this is an IPv4 address that other machines cannot reach."""
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ipaddress.AddressValueError:
        return False


def advertised(bound: str, host: str) -> str:
    """The endpoint that others are told.

    Args:
        bound: What the socket listens at.
        host: Host to tell instead; "" tells what it is.

    Raises:
        ConfigError: It listens at every address, and none was named to tell.
    """
    match = _ENDPOINT.fullmatch(bound)
    if match is None:
        raise ConfigError(f"{bound!r} is not an endpoint", field="agent.endpoint")
    if not host and match["host"] == "0.0.0.0":  # noqa: S104 - compared, not listened at
        raise ConfigError(
            f"{bound} says nothing about where this machine is",
            field="agent.advertise",
            expected="the address or name that clients reach it at",
        )
    return f"tcp://{host or match['host']}:{match['port']}"


class Link:
    """One socket. Not thread-safe: the thread that made it uses and closes it."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        endpoint: str,
        *,
        routes: bool,
        guard: Guard | None = None,
    ) -> None:
        self._socket = socket
        self._endpoint = endpoint
        self._routes = routes
        self._guard = guard if routes else None
        self._rejecting = False  # parts of a message that has been refused are still to come

    @classmethod
    def bind(
        cls,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        link: LinkConfig,
        guard: Guard | None = None,
    ) -> Self:
        """A ROUTER at `endpoint`.

        Args:
            context: One that `guard` admits peers for (`Guard.admitting`).
            endpoint: Where to listen.
            link: Bounds.
            guard: Peers must prove an authorised key, and are held to its role.

        Raises:
            ConfigError: The endpoint is not allowed, or in use.
        """
        address = check_endpoint(endpoint, guarded=guard is not None)
        socket = _socket(context, zmq.ROUTER, link)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.BACKLOG, BACKLOG)
        try:
            if guard is not None:
                guard.protect_server(socket)
            socket.bind(address)
        except ConfigError:
            socket.close(linger=0)
            raise
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise ConfigError(
                f"cannot listen at {address}: {error}", field="endpoint", expected="a free port"
            ) from error
        bound = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        return cls(socket, bound, routes=True, guard=guard)

    @classmethod
    def connect(
        cls,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        link: LinkConfig,
        guard: Guard | None = None,
        server_key: str = "",
    ) -> Self:
        """A DEALER to `endpoint`; it connects, and reconnects, in the background.

        Args:
            context: ZeroMQ's.
            endpoint: Where to connect.
            link: Bounds.
            guard: Keys to prove; None for a server that asks for none.
            server_key: Public key that the server must have, with a guard.

        Raises:
            ConfigError: The endpoint is not allowed, or the key of the server is no key.
        """
        address = check_endpoint(endpoint, guarded=guard is not None)
        socket = _socket(context, zmq.DEALER, link)
        try:
            if guard is not None:
                guard.protect_client(socket, server_key)
            socket.connect(address)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise ConfigError(
                f"cannot connect to {address}: {error}",
                field="endpoint",
                expected="an address, and the 40 characters of the server's key",
            ) from error
        return cls(socket, address, routes=False)

    @property
    def endpoint(self) -> str:
        """Where it listens (with the port that was chosen), or what it is connected to."""
        return self._endpoint

    def fileno(self) -> int:
        """Descriptor for event loops. Edge-triggered: `receive` until empty after each `send`."""
        return self._socket.getsockopt(zmq.FD)  # type: ignore[return-value]

    def watch(self) -> Watch:
        """Tells when the connection of this DEALER breaks; the caller closes it before the link."""
        return Watch(self._socket)

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
        socket, sender, peer = self._socket, "", b""
        frame: bytes | memoryview = first
        if self._guard is not None:
            part = socket.recv(_NOBLOCK, copy=False)
            peer, frame, sender = first, part.buffer, str(part.get("User-Id"))
        elif self._routes:
            peer, frame = first, socket.recv(_NOBLOCK)
        if socket.getsockopt(zmq.RCVMORE):
            self._rejecting = True
            return peer, ProtocolError(
                "a message of many parts", field="frame", expected="one part"
            )
        try:
            message = decode(frame)
            if self._guard is not None:
                self._guard.check(sender, message)
        except ProtocolError as error:
            return peer, error
        return peer, message


def connect_scheduler(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, config: Config
) -> Link:
    """A link to the scheduler, with the keys of the settings where there are any.

    Raises:
        ConfigError: The endpoint is not allowed, or the keys cannot be read.
    """
    guard = build_guard(config.security, binds=False)
    key = "" if guard is None else guard.scheduler_key
    return Link.connect(context, endpoint, config.link, guard, key)


class Watch:
    """Tells that a DEALER's connection broke. It reconnects by itself, but as another peer.

    Args:
        socket: The DEALER.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._watched = socket
        self._events = socket.get_monitor_socket(int(zmq.Event.DISCONNECTED))

    def fileno(self) -> int:
        """Descriptor for event loops. Edge-triggered."""
        return self._events.getsockopt(zmq.FD)  # type: ignore[return-value]

    def broke(self) -> bool:
        """Whether the connection broke since the last call."""
        broke = False
        while True:
            try:
                self._events.recv_multipart(_NOBLOCK)
            except zmq.Again:
                return broke
            broke = True

    def close(self) -> None:
        """Look no more."""
        self._watched.disable_monitor()
        self._events.close(linger=0)


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
