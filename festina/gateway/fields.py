"""The bodies of OpenAI's requests as types, and the checks that types cannot express.

Nothing is ignored in silence: a parameter that would change the output and that no engine here
implements is refused by name, unless it has the value that changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from festina.errors import BadRequestError
from festina.gateway.errors import UnsupportedParameterError
from festina.runtime.protocol.agent_checks import STOP_CHARACTERS_MAX, STOPS_MAX, TEMPERATURE_MAX
from festina.types import LOGPROBS_MAX

CHOICES_MAX = 16
"""Outputs of one request: prompts times `n`."""
SEED_MAX = 2**63 - 1

BOOKKEEPING = frozenset({"user", "safety_identifier", "metadata", "prompt_cache_key"})
"""Parameters that are about the caller's records alone; they are accepted and not used."""

_BOTH: dict[str, tuple[object, ...]] = {
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "repetition_penalty": (1, 1.0),
    "logit_bias": ({},),
    "top_k": (-1, 0),
    "min_p": (0, 0.0),
    "best_of": (1,),
    "use_beam_search": (False,),
    "response_format": ({"type": "text"},),
}
NEUTRAL_CHAT = _BOTH | {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none",),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
"""Parameter → the values with which the output is what it is without it."""
NEUTRAL_TEXT = _BOTH | {"echo": (False,), "suffix": ("",)}

StopText = Annotated[str, Meta(min_length=1, max_length=STOP_CHARACTERS_MAX)]
Tokens = Annotated[int, Meta(ge=1, le=2**20)]
Logprobs = Annotated[int, Meta(ge=0, le=LOGPROBS_MAX)]
Duration = Annotated[float, Meta(ge=1e-3, le=1e9)]
"""Milliseconds; less than a microsecond would be none once it is seconds."""
Pace = Annotated[float, Meta(ge=0, le=1)]


class Extension(Struct, frozen=True, forbid_unknown_fields=True):
    """Festina's own parameters; what is not given is the deployment's.

    Attributes:
        ttft_ms: Objective for the time to the first token.
        tbt_ms: Objective for the time between tokens.
        pace: 0 as fast as possible … 1 use all the slack.
    """

    ttft_ms: Duration | None = None
    tbt_ms: Duration | None = None
    pace: Pace | None = None


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """What comes with a stream.

    Attributes:
        include_usage: A last chunk without choices tells the usage.
        continuous_usage_stats: Every chunk tells the usage so far.
    """

    include_usage: bool = False
    continuous_usage_stats: bool = False


class Body(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What both kinds of requests have."""

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    max_tokens: Tokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=TEMPERATURE_MAX)] = 1.0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    n: Annotated[int, Meta(ge=1, le=CHOICES_MAX)] = 1
    seed: Annotated[int, Meta(ge=0, le=SEED_MAX)] | None = None
    stop: StopText | Annotated[tuple[StopText, ...], Meta(max_length=STOPS_MAX)] = ()
    stream: bool = False
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    min_tokens: Annotated[int, Meta(ge=0, le=2**20)] = 0
    festina: Extension = Extension()


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of a turn. Models here read text only."""

    type: Literal["text"]
    text: str


class Turn(Struct, frozen=True, forbid_unknown_fields=True):
    """A message of a conversation; `developer` is the newer name of `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[Part, ...]


class ChatBody(Body, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[tuple[Turn, ...], Meta(min_length=1, max_length=1024)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool = False
    top_logprobs: Logprobs | None = None


class TextBody(Body, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/completions`. The prompt has four forms, see `festina.gateway.parameters`."""

    prompt: Any
    logprobs: Logprobs | None = None


_Read = TypeVar("_Read", bound=Body)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_NAME = re.compile(r"field `([^`]*)`")


def read_fields(body: bytes, kind: type[_Read], neutral: Mapping[str, tuple[object, ...]]) -> _Read:
    """The body's fields; null is as good as absent.

    Raises:
        BadRequestError: It is not JSON, or a field is missing, unknown, of the wrong type or out
            of range; the error names it.
        UnsupportedParameterError: A parameter asks for what no engine here does.
    """
    try:
        raw = msgspec.json.decode(body)
    except _UNREADABLE as error:
        raise BadRequestError(f"the body is not JSON: {error}", expected="a JSON object") from error
    if not isinstance(raw, dict):
        raise BadRequestError("the body is not a JSON object", expected="a JSON object")
    try:
        read = msgspec.convert(_clean(raw, neutral), kind)
    except msgspec.ValidationError as error:
        raise BadRequestError(str(error).split(" - at ")[0], field=_field(str(error))) from error
    _check(read)
    return read


def _clean(raw: dict[str, object], neutral: Mapping[str, tuple[object, ...]]) -> dict[str, object]:
    """Without nulls, bookkeeping and parameters that change nothing."""
    kept: dict[str, object] = {}
    for key, value in raw.items():
        if value is None or key in BOOKKEEPING:
            continue
        if key not in neutral:
            kept[key] = _without_nulls(value) if key in ("stream_options", "festina") else value
        elif not any(_same(value, allowed) for allowed in neutral[key]):
            texts = " or ".join(msgspec.json.encode(item).decode() for item in neutral[key])
            raise UnsupportedParameterError(
                "is not supported here", field=key, expected=texts or "it to be absent"
            )
    messages = kept.get("messages")
    if isinstance(messages, list):
        kept["messages"] = [_clean_turn(turn) for turn in messages]
    return kept


def _clean_turn(turn: object) -> object:
    """Clients send answers back as they got them, with all that was empty, and names."""
    if not isinstance(turn, dict):
        return turn
    return {
        key: value
        for key, value in turn.items()
        if value is not None and key != "name" and (value != [] or key == "content")
    }


def _without_nulls(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {key: item for key, item in value.items() if item is not None}


def _same(value: object, allowed: object) -> bool:
    return isinstance(value, bool) == isinstance(allowed, bool) and value == allowed


def _check(body: Body) -> None:
    if body.stream_options is not None and not body.stream:
        raise BadRequestError(
            "is for streams", field="stream_options", expected="it only with stream=true"
        )
    if body.min_tokens and not body.ignore_eos:
        raise UnsupportedParameterError(
            "is not supported without ignore_eos", field="min_tokens", expected="0"
        )


def _field(complaint: str) -> str:
    """Dotted path of the field that msgspec complains about."""
    path, name = _PATH.search(complaint), _NAME.search(complaint)
    parts = [path[1] if path else "", name[1] if name else ""]
    return ".".join(part for part in parts if part)
