"""Keys of one process or person: made once, kept in one file that only its owner can read."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import zmq
from msgspec import Meta

from festina.errors import ConfigError
from festina.security.roles import Role

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
Z85Key = Annotated[str, Meta(min_length=40, max_length=40)]
_FILE_BYTES_MAX = 4096


class PublicKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What servers know of a key.

    Attributes:
        name: Whose it is.
        role: What its owner may do.
        public_key: Z85 text of the CURVE key.
        made: When, ISO 8601.
    """

    name: str
    role: Role
    public_key: Z85Key
    made: str


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What its owner has. Whoever reads the file is its owner.

    Attributes:
        public: The half that servers know.
        secret_key: Z85 text.
        scheduler_key: Public key of the cluster's scheduler: only whoever holds the other half can
            pass for it. The keys of agents are learned from the scheduler.
    """

    public: PublicKey
    secret_key: Z85Key
    scheduler_key: Z85Key

    def __repr__(self) -> str:
        return f"Identity({self.public.name!r}, {self.public.role!r})"  # no secret in any log


def make_identity(name: str, role: Role, now: datetime, scheduler_key: str = "") -> Identity:
    """A new pair of keys.

    Args:
        name: Letters, digits, dot, dash and underscore.
        role: What its owner may do.
        now: When it is made.
        scheduler_key: Public key of the cluster; "" for the scheduler's own identity.

    Raises:
        ConfigError: The name has another form.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name of a key", field="name", expected="1 to 64 of A-Z a-z 0-9 . _ -"
        )
    public, secret = (half.decode("ascii") for half in zmq.curve_keypair())
    known = PublicKey(name, role, public, now.astimezone(UTC).isoformat(timespec="seconds"))
    return Identity(known, secret, scheduler_key or public)


def write_secret(path: Path, identity: Identity) -> None:
    """Write a new file that its owner alone can read.

    Raises:
        ConfigError: It is there already, or cannot be written.
    """
    data = msgspec.json.format(msgspec.json.encode(identity), indent=2) + b"\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}", field="identity", expected="a new file"
        ) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def read_identity(path: Path, field: str = "security.identity") -> Identity:
    """The keys in a file.

    Raises:
        ConfigError: It cannot be read, others can read it too, or it is damaged.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_FILE_BYTES_MAX)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", field=field) from error
    if mode & 0o077:
        raise ConfigError(
            f"others than its owner can read {path}", field=field, expected="mode 0600"
        )
    try:
        identity = msgspec.json.decode(data, type=Identity)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is no identity: {error}", field=field) from error
    if derived_public(identity.secret_key, field) != identity.public.public_key:
        raise ConfigError(f"the two halves in {path} do not belong together", field=field)
    return identity


def derived_public(secret_key: str, field: str) -> str:
    """The public half of a secret key.

    Raises:
        ConfigError: It is no Z85 text.
    """
    try:
        return zmq.curve_public(secret_key.encode("ascii")).decode("ascii")
    except (zmq.ZMQError, ValueError) as error:
        raise ConfigError(f"not a key: {error}", field=field, expected="40 of Z85") from error
