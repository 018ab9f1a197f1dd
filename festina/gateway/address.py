"""Where the gateway listens: an address of this machine, or any address if there are keys."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from festina.config import GatewayConfig
from festina.errors import ConfigError

BACKLOG = 1024
FIELD = "gateway.http"

_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]/]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address and a TCP port; port 0 is chosen by the system."""

    host: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    @property
    def url(self) -> str:
        """As clients write it."""
        host = f"[{self.host}]" if self.host.version == 6 else str(self.host)
        return f"http://{host}:{self.port}"


def checked_address(config: GatewayConfig) -> Address:
    """The address in the settings.

    Raises:
        ConfigError: It is none, or other machines can reach it and there are no keys.
    """
    address = parse_address(config.http)
    if not address.host.is_loopback and not config.keys_file:
        raise ConfigError(
            f"{config.http!r} can be reached from other machines and asks for no key",
            field=FIELD,
            expected="a loopback address, or a file of API keys (gateway.keys_file)",
        )
    return address


def parse_address(text: str) -> Address:
    """`HOST:PORT`, with HOST an IPv4 address, an IPv6 address in brackets, or localhost.

    Raises:
        ConfigError: It has another form.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise _no_address(text)
    host = match["six"] or match["host"]
    try:
        found = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as error:
        raise _no_address(text) from error
    return Address(found, int(match["port"]))


def listen(address: Address) -> socket.socket:
    """A socket to which clients can connect from now on.

    Raises:
        ConfigError: The address is in use, or none of this machine's.
    """
    family = socket.AF_INET6 if address.host.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address.host), address.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {address.url}: {error.strerror}",
            field=FIELD,
            expected="a free port on an address of this machine",
        ) from error
    return listener


def _no_address(text: str) -> ConfigError:
    return ConfigError(
        f"{text!r} is not an address", field=FIELD, expected="HOST:PORT, such as 127.0.0.1:8000"
    )
