"""Errors of HTTP alone, and the form that every error takes in an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from festina.errors import (
    AgentLostError,
    BadRequestError,
    CancelledError,
    ContextLimitError,
    FestinaError,
    FrameTooLargeError,
    InfeasibleError,
    OverloadedError,
    SchedulerLostError,
    UnknownModelError,
)

MESSAGE_CHARACTERS_MAX = 500
RETRY_AFTER_MS = 1000
"""For errors that pass but bring no time of their own."""

INVALID = "invalid_request_error"

_PARAMS = {
    "turns": "messages",
    "text": "prompt",
    "token_ids": "prompt",
    "input_tokens": "prompt",
    "pace": "festina.pace",
    "slo": "festina",
}
"""Fields of messages between processes → parameters of HTTP requests."""


class HttpError(FestinaError):
    """Base of what is wrong with a request as HTTP; these never travel between processes."""

    status: ClassVar[int] = 400
    kind: ClassVar[str] = INVALID


class UnsupportedParameterError(HttpError):
    """A parameter asks for something that no engine of this server does."""

    code = "unsupported_parameter"


class UnauthorizedError(HttpError):
    """There is no API key, or a wrong one."""

    code = "invalid_api_key"
    status = 401
    kind = "authentication_error"


class NotFoundError(HttpError):
    """There is nothing at this path."""

    code = "not_found"
    status = 404


class MethodError(HttpError):
    """The path takes another method."""

    code = "method_not_allowed"
    status = 405


class BodyTimeoutError(HttpError):
    """The body did not come in time."""

    code = "body_timeout"
    status = 408


class BodyTooLargeError(HttpError):
    """The body is larger than is read."""

    code = "body_too_large"
    status = 413


class ContentTypeError(HttpError):
    """The body does not say that it is JSON."""

    code = "content_type"
    status = 415


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as HTTP.

    Attributes:
        status: HTTP status.
        body: JSON in OpenAI's shape.
        headers: Further headers.
    """

    status: int
    body: bytes
    headers: Mapping[str, str]


def problem(error: FestinaError) -> Problem:
    """What to answer for `error`."""
    status, kind, code = _classify(error)
    text = error.message if not error.expected else f"{error.message} (expected {error.expected})"
    if error.field:
        text = f"{param(error.field)}: {text}"
    body = {
        "message": text[:MESSAGE_CHARACTERS_MAX],
        "type": kind,
        "param": param(error.field) or None,
        "code": code,
    }
    return Problem(status, msgspec.json.encode({"error": body}), _headers(status, error))


def param(field: str) -> str:
    """The HTTP parameter behind the field that an error names."""
    if field.startswith("slo."):
        return "festina." + field.removeprefix("slo.")
    return _PARAMS.get(field, field.removeprefix("sampling."))


def _classify(error: FestinaError) -> tuple[int, str, str]:
    """Status, type and code."""
    match error:
        case HttpError():
            return error.status, error.kind, error.code
        case UnknownModelError():
            return 404, INVALID, "model_not_found"
        case ContextLimitError():
            return 400, INVALID, "context_length_exceeded"
        case FrameTooLargeError():
            return 413, INVALID, error.code
        case BadRequestError() | InfeasibleError():
            return 400, INVALID, error.code
        case OverloadedError():
            return 429, "rate_limit_error", error.code
        case AgentLostError() | SchedulerLostError() | CancelledError():
            return 503, "service_unavailable_error", error.code
    return 500, "server_error", error.code


def _headers(status: int, error: FestinaError) -> dict[str, str]:
    if status == 401:
        return {"www-authenticate": "Bearer"}
    if status not in (429, 503):
        return {}
    wait_ms = error.retry_after_ms or RETRY_AFTER_MS
    return {"retry-after": str(math.ceil(wait_ms / 1000)), "retry-after-ms": str(wait_ms)}
