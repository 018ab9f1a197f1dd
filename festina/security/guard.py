"""CURVE on sockets: a peer proves its key before anything of it is read (ZeroMQ RFC 26, 27)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator

from festina.config import SecurityConfig
from festina.errors import ConfigError, NotAllowedError, OverloadedError
from festina.messages import AnyMessage, Submit
from festina.security.authorized import AuthorizedKeys
from festina.security.identity import Identity, read_identity
from festina.security.rate import RateLimit, RateLimitError
from festina.security.roles import Role, check_allowed

ZAP_DOMAIN = "festina"


class Guard:
    """Puts keys on sockets and tells who sent a message.

    Args:
        identity: Keys of this process.
        authorized: Keys that its own sockets admit; None for a process that binds none.
        limit: How often the owner of a client's key may submit a request.
        clock: Seconds, for the limit.
    """

    def __init__(
        self,
        identity: Identity,
        authorized: AuthorizedKeys | None,
        limit: RateLimit | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity = identity
        self._authorized = authorized
        self._limit = limit
        self._clock = clock

    @property
    def public_key(self) -> str:
        """What others pin when they connect to this process."""
        return self._identity.public.public_key

    @property
    def scheduler_key(self) -> str:
        """The key that the scheduler must have."""
        return self._identity.scheduler_key

    @contextmanager
    def admitting(self, context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[None]:
        """Inside, sockets of `context` that this guard protects admit the authorised keys.

        ZeroMQ asks a thread of its own for each handshake; messages do not pass through it.
        """
        if self._authorized is None:
            yield
            return
        authenticator = ThreadAuthenticator(context)
        authenticator.start()
        try:
            authenticator.configure_curve_callback(ZAP_DOMAIN, credentials_provider=self)
            yield
        finally:
            authenticator.stop()

    def callback(self, domain: str, public_key: bytes) -> bool:
        """Whether a handshake with this key may succeed; called by pyzmq on its own thread."""
        return self._authorized is not None and (
            domain == ZAP_DOMAIN
            and self._authorized.find(public_key.decode("ascii", "replace")) is not None
        )

    def protect_server(self, socket: zmq.Socket[bytes]) -> None:
        """Before `bind`: only peers with an authorised key get in.

        Raises:
            ConfigError: This process has no folder of authorised keys.
        """
        if self._authorized is None:
            raise ConfigError(
                "no folder of keys to admit", field="security.authorized", expected="a folder"
            )
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt_string(zmq.CURVE_SECRETKEY, self._identity.secret_key)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def protect_client(self, socket: zmq.Socket[bytes], server_key: str) -> None:
        """Before `connect`: only the server that holds this key is talked to."""
        socket.setsockopt_string(zmq.CURVE_SERVERKEY, server_key)
        socket.setsockopt_string(zmq.CURVE_PUBLICKEY, self._identity.public.public_key)
        socket.setsockopt_string(zmq.CURVE_SECRETKEY, self._identity.secret_key)

    def check(self, public_key: str, message: AnyMessage) -> None:
        """Whether the owner of this key may say this, now: it may have been revoked meanwhile.

        Raises:
            NotAllowedError: It may not.
            RateLimitError: It may, later.
        """
        known = None if self._authorized is None else self._authorized.find(public_key)
        if known is None:
            raise NotAllowedError("this key is not admitted", field="key", expected="another key")
        check_allowed(known.name, known.role, message)
        claimed = getattr(message, "public_key", public_key)
        if claimed != public_key:
            raise NotAllowedError(
                "the message names a key that is not its sender's",
                field="public_key",
                expected=public_key,
            )
        if isinstance(message, Submit) and known.role in (Role.CLIENT, Role.OPERATOR):
            self._count(known.name, message)

    def _count(self, name: str, submit: Submit) -> None:
        if self._limit is None:
            return
        try:
            self._limit.take(name, self._clock())
        except OverloadedError as error:
            raise RateLimitError(submit.request_id, error) from error


@contextmanager
def admitting(guard: Guard | None, context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[None]:
    """`guard.admitting(context)`, or nothing where there is no guard."""
    with nullcontext() if guard is None else guard.admitting(context):
        yield


def build_guard(security: SecurityConfig, *, binds: bool) -> Guard | None:
    """The guard that the settings ask for; None without an identity (loopback only).

    Args:
        security: Settings.
        binds: The process admits others.

    Raises:
        ConfigError: A file or folder cannot be read.
    """
    if not security.identity:
        return None
    if not zmq.has("curve"):
        raise ConfigError(
            "this ZeroMQ was built without CURVE", field="security.identity", expected="libsodium"
        )
    identity = read_identity(Path(security.identity))
    if not binds:
        return Guard(identity, None)
    if not security.authorized:
        raise ConfigError(
            "no folder of keys to admit", field="security.authorized", expected="a folder"
        )
    limit = RateLimit(security.requests_per_s, security.requests_burst)
    return Guard(identity, AuthorizedKeys(Path(security.authorized), time.monotonic), limit)
