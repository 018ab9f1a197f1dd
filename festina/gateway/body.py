"""Reading a request's body: bounded in size and time."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import Receive

from festina.config import GatewayConfig
from festina.errors import CancelledError
from festina.gateway.errors import BodyTimeoutError, BodyTooLargeError, ContentTypeError


async def read_body(headers: Headers, receive: Receive, config: GatewayConfig) -> bytes:
    """The whole body.

    Raises:
        ContentTypeError: It is not declared as JSON. Pages in a browser can send anything else to
            a server on this machine without being asked whether they may.
        BodyTooLargeError: It has more than `body_bytes_max` bytes.
        BodyTimeoutError: It took longer than `body_timeout_s`.
        CancelledError: The client went away.
    """
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ContentTypeError(
            f"a body of type {content_type!r}", field="Content-Type", expected="application/json"
        )
    declared = headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > config.body_bytes_max:
        raise _too_large(config)
    try:
        async with asyncio.timeout(config.body_timeout_s):
            return await _read(receive, config)
    except TimeoutError as error:
        raise BodyTimeoutError(
            "the body did not arrive", expected=f"all of it within {config.body_timeout_s:g} s"
        ) from error


async def _read(receive: Receive, config: GatewayConfig) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CancelledError("the client went away")
        body += message.get("body", b"")
        if len(body) > config.body_bytes_max:
            raise _too_large(config)
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(config: GatewayConfig) -> BodyTooLargeError:
    return BodyTooLargeError(
        "the body is too large", expected=f"at most {config.body_bytes_max} bytes"
    )
