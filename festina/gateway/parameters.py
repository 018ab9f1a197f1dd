"""From the body of a request to jobs for the cluster."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from festina.config import DeploymentConfig, GatewayConfig
from festina.errors import BadRequestError, UnknownModelError
from festina.gateway.fields import (
    CHOICES_MAX,
    NEUTRAL_CHAT,
    NEUTRAL_TEXT,
    SEED_MAX,
    Body,
    ChatBody,
    Duration,
    Extension,
    Pace,
    TextBody,
    Turn,
    read_fields,
)
from festina.messages import ChatTurn
from festina.runtime.generation import Options, make_job
from festina.runtime.protocol.request import Job
from festina.types import Sampling, Slo

Kind = Literal["chat", "text"]
TOKEN_ID_MAX = 2**31 - 1

_HEADERS = {
    "festina-ttft-ms": ("ttft_ms", Duration),
    "festina-tbt-ms": ("tbt_ms", Duration),
    "festina-pace": ("pace", Pace),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, understood.

    Attributes:
        kind: Chat or plain text: the shape of the answer.
        id: Names it in the answer.
        model: Deployment name.
        jobs: One for each choice; those of one prompt are neighbours.
        choices_per_prompt: `n`.
        slo: Objectives in force.
        stream: Whether to send tokens as they come.
        include_usage: Whether a stream ends with the usage.
        running_usage: Whether each chunk tells the usage so far.
    """

    kind: Kind
    id: str
    model: str
    jobs: tuple[Job, ...]
    choices_per_prompt: int
    slo: Slo
    stream: bool
    include_usage: bool
    running_usage: bool


class Reader:
    """Reads bodies against the deployments that there are.

    Args:
        deployments: What can be asked for.
        config: Default of the longest output.
    """

    def __init__(self, deployments: Mapping[str, DeploymentConfig], config: GatewayConfig) -> None:
        self._deployments = deployments
        self._max_tokens = config.max_tokens

    def chat(self, raw: bytes, headers: Mapping[str, str]) -> Call:
        """The call in the body of `POST /v1/chat/completions`.

        Raises:
            FestinaError: What is wrong with it; `field` names the parameter.
        """
        body = read_fields(raw, ChatBody, NEUTRAL_CHAT)
        limits = {body.max_tokens, body.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise BadRequestError(
                f"differs from max_tokens ({body.max_tokens})",
                field="max_completion_tokens",
                expected="one of the two, or the same number",
            )
        turns = tuple(_turn(turn) for turn in body.messages)
        if not any(turn.content for turn in turns):
            raise BadRequestError("are empty", field="messages", expected="some text")
        likeliest = _likeliest(body)
        return self._call(
            "chat", body, headers, [{"turns": turns}], next(iter(limits), None), likeliest
        )

    def text(self, raw: bytes, headers: Mapping[str, str]) -> Call:
        """The call in the body of `POST /v1/completions`.

        Raises:
            FestinaError: What is wrong with it; `field` names the parameter.
        """
        body = read_fields(raw, TextBody, NEUTRAL_TEXT)
        prompts = _prompts(body.prompt)
        return self._call("text", body, headers, prompts, body.max_tokens, body.logprobs)

    def _call(
        self,
        kind: Kind,
        body: Body,
        headers: Mapping[str, str],
        prompts: list[Options],
        max_tokens: int | None,
        logprobs: int | None,
    ) -> Call:
        deployment = self._deployments.get(body.model)
        if deployment is None:
            raise UnknownModelError(
                "there is no such model", field="model", expected=", ".join(self._deployments)
            )
        if len(prompts) * body.n > CHOICES_MAX:
            raise BadRequestError(
                f"{len(prompts)} prompts times n={body.n}",
                field="n",
                expected=f"at most {CHOICES_MAX} choices",
            )
        if max_tokens is None:
            max_tokens = min(self._max_tokens, max(1, deployment.context_tokens // 2))
        wishes = _wishes(body.festina, headers)
        slo = Slo(wishes.ttft_ms or deployment.slo.ttft_ms, wishes.tbt_ms or deployment.slo.tbt_ms)
        name = uuid.uuid4().hex
        seed = secrets.randbits(62) if body.seed is None else body.seed
        jobs = []
        for number in range(len(prompts) * body.n):
            options = prompts[number // body.n].copy()
            options["request_id"] = f"{name}-{number}"
            options["max_tokens"] = max_tokens
            options["slo"] = None if slo == deployment.slo else slo
            options["sampling"] = _sampling(body, (seed + number) & SEED_MAX, logprobs)
            options["pace"] = wishes.pace
            jobs.append(make_job(body.model, options))
        told = body.stream_options
        return Call(
            kind=kind,
            id=f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{name}",
            model=body.model,
            jobs=tuple(jobs),
            choices_per_prompt=body.n,
            slo=slo,
            stream=body.stream,
            include_usage=told is not None and told.include_usage,
            running_usage=told is not None and told.continuous_usage_stats,
        )


def _sampling(body: Body, seed: int, logprobs: int | None) -> Sampling:
    stop = (body.stop,) if isinstance(body.stop, str) else body.stop
    return Sampling(body.temperature, body.top_p, seed, stop, body.ignore_eos, logprobs)


def _likeliest(body: ChatBody) -> int | None:
    """How many of the likeliest tokens to tell beside each; None for no logprobs at all."""
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise BadRequestError(
            "is about logprobs", field="top_logprobs", expected="it only with logprobs=true"
        )
    return None


def _turn(turn: Turn) -> ChatTurn:
    role = "system" if turn.role == "developer" else turn.role
    if isinstance(turn.content, str):
        return ChatTurn(role, turn.content)
    return ChatTurn(role, "".join(part.text for part in turn.content))


def _prompts(prompt: object) -> list[Options]:
    """A text, token ids, texts, or lists of token ids."""
    if isinstance(prompt, str):
        prompt = [prompt]
    if not isinstance(prompt, list) or not prompt or len(prompt) > 2**20:
        raise _bad_prompt("prompt")
    if all(isinstance(item, int) for item in prompt):
        prompt = [prompt]
    if len(prompt) > CHOICES_MAX:
        raise BadRequestError(
            f"{len(prompt)} prompts", field="prompt", expected=f"at most {CHOICES_MAX}"
        )
    return [_prompt(item, f"prompt[{place}]") for place, item in enumerate(prompt)]


def _prompt(item: object, field: str) -> Options:
    if isinstance(item, str) and item:
        return {"prompt": item}
    if isinstance(item, list) and item and all(_is_token(token) for token in item):
        return {"token_ids": item}
    raise _bad_prompt(field)


def _is_token(token: object) -> bool:
    return type(token) is int and 0 <= token <= TOKEN_ID_MAX


def _bad_prompt(field: str) -> BadRequestError:
    return BadRequestError(
        "is not a prompt",
        field=field,
        expected="a text, a list of texts, a list of token ids, or a list of such; none empty",
    )


def _wishes(given: Extension, headers: Mapping[str, str]) -> Extension:
    """The body's own, and the headers' for what it leaves open."""
    wishes = {name: getattr(given, name) for name in given.__struct_fields__}
    for header, (name, kind) in _HEADERS.items():
        if wishes[name] is None and header in headers:
            try:
                wishes[name] = msgspec.convert(headers[header], kind, strict=False)
            except msgspec.ValidationError as error:
                raise BadRequestError(str(error), field=header) from error
    return Extension(**wishes)
