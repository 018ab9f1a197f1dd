"""API keys: read from a file, kept as digests, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from pathlib import Path

from festina.errors import ConfigError
from festina.gateway.errors import UnauthorizedError

FIELD = "gateway.keys_file"

_KEY = re.compile(r"[\x21-\x7e]{16,256}")


class ApiKeys:
    """The keys that open the gateway; without any, it is open to all who can reach it.

    Args:
        keys: Texts of 16 to 256 printable ASCII characters.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, authorization: bytes) -> str:
        """Whether the header `Authorization` holds one of the keys; which, as a name.

        Every key is compared, whole digests of equal length each time: how long it takes tells
        neither which key was close nor how close.

        Raises:
            UnauthorizedError: It does not.
        """
        if not self._digests:
            return ""
        scheme, _, key = authorization.partition(b" ")
        given = _digest(key.strip())
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        if scheme.lower() != b"bearer" or not any(matches):
            raise UnauthorizedError(
                "no valid API key", field="Authorization", expected="Bearer and one of the keys"
            )
        return f"key {matches.index(True) + 1}"


def read_keys(path: str) -> ApiKeys:
    """The keys in a file, one a line; blank lines and lines that begin with # are skipped.

    Args:
        path: "" gives no keys.

    Raises:
        ConfigError: The file cannot be read, has no key, or a line is none; it names the line.
    """
    if not path:
        return ApiKeys()
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}", field=FIELD) from error
    keys = []
    for number, line in enumerate(lines, 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if not _KEY.fullmatch(key):  # the key itself is not shown
            raise ConfigError(
                f"line {number} of {path} is not a key",
                field=FIELD,
                expected="16 to 256 printable ASCII characters without spaces",
            )
        keys.append(key)
    if not keys:
        raise ConfigError(f"{path} holds no key", field=FIELD, expected="one key a line")
    return ApiKeys(keys)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
