"""The description of the HTTP API (OpenAPI 3.1), derived from the types that read requests."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

import msgspec

from festina.gateway.fields import (
    BOOKKEEPING,
    NEUTRAL_CHAT,
    NEUTRAL_TEXT,
    ChatBody,
    Duration,
    Pace,
    TextBody,
)
from festina.gateway.status import Status

Schema = dict[str, Any]

_PROMPT: Schema = {
    "description": "A text, texts, token ids, or lists of token ids; none empty.",
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "array",
            "minItems": 1,
            "maxItems": 16,
            "items": {"type": "string", "minLength": 1},
        },
        {
            "type": "array",
            "minItems": 1,
            "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
        },
        {
            "type": "array",
            "minItems": 1,
            "maxItems": 16,
            "items": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
            },
        },
    ],
}
_HEADERS = {
    "festina-ttft-ms": ("Objective for the time to the first token, in ms.", Duration),
    "festina-tbt-ms": ("Objective for the time between tokens, in ms.", Duration),
    "festina-pace": ("0 as fast as possible … 1 use all the slack.", Pace),
}
_ERRORS = {
    "400": "A parameter is missing, unknown, out of range or not supported; `param` names it.",
    "401": "No API key, or a wrong one.",
    "404": "No such model.",
    "408": "The body did not come in time.",
    "413": "The body is larger than is read.",
    "415": "The body does not say that it is JSON.",
    "429": "Overloaded; `Retry-After` says when to try again.",
    "500": "A model step failed.",
    "503": "The agent or the scheduler was lost; it may be tried again.",
}
_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


def description(models: Iterable[str], *, keyed: bool = False) -> Schema:
    """The whole document. Bodies are what `festina.gateway.fields` takes, to the letter.

    Args:
        models: Names of the deployments.
        keyed: Whether an API key is asked for.
    """
    names = {"type": "string", "enum": sorted(models)}
    types = [ChatBody, TextBody, Status]
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    _add_neutral(schemas["ChatBody"], NEUTRAL_CHAT)
    _add_neutral(schemas["TextBody"], NEUTRAL_TEXT)
    schemas["TextBody"]["properties"]["prompt"] = _PROMPT
    schemas["Error"] = _ERROR
    for body in ("ChatBody", "TextBody"):
        schemas[body]["properties"]["model"] = names
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "festina",
            "version": metadata.version("festina"),
            "description": "OpenAI's API, with joules in `usage` and objectives per request.",
        },
        "security": [{"key": []}] if keyed else [],
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
        "paths": {
            "/v1/chat/completions": {"post": _generate("ChatBody", "A conversation goes on")},
            "/v1/completions": {"post": _generate("TextBody", "A text goes on")},
            "/v1/models": {"get": _read("Deployments with their objectives", {"type": "object"})},
            "/v1/models/{model}": {"get": _one_model(names)},
            "/health": {"get": _open("Whether the cluster serves, now", "application/json")},
            "/status": {
                "get": _read(
                    "The cluster now, and the last hour of it",
                    {"$ref": "#/components/schemas/Status"},
                )
            },
            "/metrics": {"get": _text("Prometheus's metrics", "text/plain")},
            "/openapi.json": {"get": _read("This document", {"type": "object"})},
            "/": {"get": _open("The live page", "text/html")},
        },
    }


def _add_neutral(schema: Schema, neutral: Mapping[str, tuple[object, ...]]) -> None:
    """Parameters that are taken with the values that change nothing, or not looked at."""
    properties = schema["properties"]
    for name, values in neutral.items():
        properties[name] = {"enum": [*values, None]} if values else {"type": "null"}
    for name in BOOKKEEPING:
        properties[name] = {"description": "Accepted and not used."}


_BEYOND = (
    "Beyond the schema: some prompt or turn has text; `stream_options` come with `stream`; "
    "`min_tokens` come with `ignore_eos`; `max_tokens` and `max_completion_tokens` agree; prompts "
    "times `n` are 16 at most; prompt and output fit into the context of the model."
)


def _generate(body: str, summary: str) -> Schema:
    content = {
        "application/json": {"schema": {"type": "object"}},
        "text/event-stream": {"schema": {"description": "A chunk of JSON each; `[DONE]` ends."}},
    }
    return {
        "summary": summary,
        "description": _BEYOND,
        "parameters": [
            {
                "name": name,
                "in": "header",
                "description": text,
                "schema": msgspec.json.schema(kind),
            }
            for name, (text, kind) in _HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}},
        },
        "responses": {
            "200": {"description": "The output; a stream of events if asked", "content": content},
            **_errors(*_ERRORS),
        },
    }


def _one_model(names: Schema) -> Schema:
    return _read("One deployment", {"type": "object"}, "404") | {
        "parameters": [{"name": "model", "in": "path", "required": True, "schema": names}]
    }


def _read(summary: str, schema: Schema, *more: str) -> Schema:
    return {
        "summary": summary,
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": schema}}},
            **_errors("401", "503", *more),
        },
    }


def _text(summary: str, media_type: str) -> Schema:
    content = {media_type: {"schema": {"type": "string"}}}
    return {
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": content}, **_errors("401")},
    }


def _open(summary: str, media_type: str) -> Schema:
    content: Schema = {media_type: {"schema": {}}}
    return {
        "summary": summary,
        "security": [],
        "responses": {
            "200": {"description": "OK", "content": content},
            "503": {"description": "It does not", "content": content},
        },
    }


def _errors(*statuses: str) -> Schema:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        status: {"description": _ERRORS[status], "content": content} for status in sorted(statuses)
    }
