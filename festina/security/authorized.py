"""The keys that a cluster admits: a folder with one file each. Removing a file revokes a key.

keys/
  scheduler.identity   the cluster's own; the scheduler's machine alone has it
  authorized/NAME.key  public halves, what servers read
  revoked/NAME.key     what they were
  NAME.identity        to be handed to its owner, then deleted here
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from festina.errors import ConfigError
from festina.security.identity import PublicKey

LOOK_S = 1.0
"""How often the folder is looked at: a revoked key is out this long after it was revoked.

For a key that is not known it is looked at each time: the key may be new, and ZeroMQ gives a
connection up after one refusal. Listing a folder costs less than the handshake before it.
"""


def read_public(path: Path, field: str = "security.authorized") -> PublicKey:
    """The public half in a file.

    Raises:
        ConfigError: It cannot be read or is damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=PublicKey)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", field=field) from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is no key: {error}", field=field) from error


def read_folder(folder: Path, field: str = "security.authorized") -> dict[str, PublicKey]:
    """All keys of a folder, by the text of the key.

    Raises:
        ConfigError: The folder or a file in it cannot be read, or two files hold one key.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder", field=field, expected="a folder of keys")
    keys: dict[str, PublicKey] = {}
    for path in sorted(folder.glob("*.key")):
        key = read_public(path, field)
        if key.public_key in keys:
            raise ConfigError(
                f"{key.name!r} and {keys[key.public_key].name!r} are one key",
                field=field,
                expected="a key for each",
            )
        keys[key.public_key] = key
    return keys


class AuthorizedKeys:
    """The keys that are admitted now. Thread-safe: the dictionary is replaced, never changed.

    A folder that cannot be read any more admits nobody new and nobody old: what cannot be checked
    is refused. `error` says why.

    Args:
        folder: Where they are.
        clock: Seconds that never go back.

    Raises:
        ConfigError: As `read_folder`.
    """

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._stamp = self._state()
        self._keys = read_folder(folder)
        self._looked_at = clock()
        self.error: ConfigError | None = None

    def find(self, public_key: str) -> PublicKey | None:
        """Whose key this is; None if it is not admitted."""
        now = self._clock()
        if now - self._looked_at >= LOOK_S or public_key not in self._keys:
            self._look(now)
        return self._keys.get(public_key)

    def _look(self, now: float) -> None:
        self._looked_at = now
        self._refresh()

    def _refresh(self) -> None:
        stamp = self._state()
        if stamp == self._stamp:
            return
        try:
            self._keys, self._stamp, self.error = read_folder(self._folder), stamp, None
        except ConfigError as error:
            self._keys, self._stamp, self.error = {}, None, error

    def _state(self) -> tuple[tuple[str, int, int], ...] | None:
        """Names, sizes and times of the files; None if the folder cannot be listed."""
        try:
            return tuple(
                sorted(
                    (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
                    for entry in os.scandir(self._folder)
                    if entry.name.endswith(".key")
                )
            )
        except OSError:
            return None
