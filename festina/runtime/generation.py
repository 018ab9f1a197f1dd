"""What a program asks of a model and what it gets: options, pieces of output, completions."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from msgspec.structs import replace

from festina.errors import BadRequestError, FestinaError, FrameTooLargeError, ProtocolError
from festina.messages import (
    Accepted,
    ChatTurn,
    Generate,
    Submit,
    TokenLogprobs,
    Tokens,
    decode,
    encode,
)
from festina.runtime.protocol.request import Ended, Event, Job
from festina.types import COUNT_MAX, FinishReason, Sampling, Slo, Usage

BYTES_PER_TOKEN = 4
"""Guess for prompts given as text; the agent counts exactly."""


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A piece of output.

    Attributes:
        index: Index of its first token in the output.
        token_ids: Its tokens; empty for text that was held back until the end.
        text: Text that they complete; may be empty inside a multi-token character.
        logprobs: How likely each was, if `Sampling.logprobs` asked for it.
    """

    index: int
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole output.

    Attributes:
        request_id: As submitted.
        text: The output.
        token_ids: Its tokens.
        reason: Why it ended.
        usage: What it cost.
        agent: Where it ran.
        ttft_ms: From submission to the first token; None when there was none.
        gaps_ms: Between messages with tokens, as this client saw them.
        logprobs: How likely each token was, if `Sampling.logprobs` asked for it.
    """

    request_id: str
    text: str
    token_ids: tuple[int, ...]
    reason: FinishReason
    usage: Usage
    agent: str
    ttft_ms: float | None
    gaps_ms: tuple[float, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()


class Options(TypedDict, total=False):
    """What `generate` takes besides the model; all may be left out but the prompt.

    Attributes:
        prompt: Raw text.
        turns: Conversation, rendered with the model's own chat template.
        token_ids: Prompt as token ids.
        max_tokens: Upper bound of the output, 128 unless told.
        slo: Objectives; None takes the deployment's.
        sampling: How tokens are chosen, greedy unless told.
        pace: 0 as fast as possible … 1 use all the slack; None takes the deployment's.
        retries: How often to try again when the cluster is too busy, 0 unless told.
        request_id: Unique in the cluster; made up unless told.
    """

    prompt: str
    turns: Sequence[ChatTurn]
    token_ids: Sequence[int]
    max_tokens: int
    slo: Slo | None
    sampling: Sampling
    pace: float | None
    retries: int
    request_id: str


def make_job(model: str, options: Options) -> Job:
    """The messages of a request.

    Raises:
        BadRequestError: A field has the wrong kind or is out of range; it names which.
        FrameTooLargeError: The prompt is too long for one message.
    """
    generate = Generate(
        options.get("request_id") or uuid.uuid4().hex,
        model,
        ticket=0,
        epoch=0,
        max_tokens=options.get("max_tokens", 128),
        elapsed_ms=0.0,
        slo=options.get("slo"),
        sampling=options.get("sampling", Sampling()),
        text=options.get("prompt", ""),
        turns=tuple(options.get("turns", ())),
        token_ids=tuple(options.get("token_ids", ())),
        pace=options.get("pace"),
    )
    _check(generate)
    submit = Submit(
        generate.request_id,
        model,
        input_tokens=_input_tokens(generate),
        max_tokens=generate.max_tokens,
        slo=generate.slo,
        estimated=not generate.token_ids,
    )
    return Job(submit, generate, options.get("retries", 0))


def _check(generate: Generate) -> None:
    if sum(map(bool, (generate.text, generate.turns, generate.token_ids))) != 1:
        raise BadRequestError(
            "a request has one prompt that is not empty",
            field="prompt",
            expected="exactly one of prompt, turns and token_ids",
        )
    try:  # with the widest figures that its placement may fill in
        decode(encode(replace(generate, ticket=COUNT_MAX, epoch=COUNT_MAX)))
    except FrameTooLargeError:
        raise
    except (TypeError, OverflowError, UnicodeEncodeError) as error:
        raise BadRequestError(
            f"cannot be sent: {error}", field="request", expected="plain values and valid Unicode"
        ) from error
    except ProtocolError as error:
        field = "prompt" if error.field == "text" else error.field
        raise BadRequestError(error.message, field=field) from error


def _input_tokens(generate: Generate) -> int:
    if generate.token_ids:
        return len(generate.token_ids)
    texts = [generate.text, *(turn.content for turn in generate.turns)]
    return max(1, sum(len(text.encode()) for text in texts) // BYTES_PER_TOKEN)


class Collector:
    """Turns what the logic tells of one request into pieces and, at the end, a `Completion`."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.completion: Completion | None = None
        self.error: FestinaError | None = None
        self._texts: list[str] = []
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprobs] = []

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.completion is not None or self.error is not None

    def take(self, event: Event) -> TokenEvent | None:
        """The piece of output in `event`, if there is one."""
        match event:
            case Tokens(_, index, token_ids, text, logprobs):
                self._token_ids += token_ids
                self._logprobs += logprobs
                self._texts.append(text)
                return TokenEvent(index, token_ids, text, logprobs)
            case Ended():
                self._texts.append(event.text)
                self.completion = Completion(
                    self.request_id,
                    "".join(self._texts),
                    tuple(self._token_ids),
                    event.reason,
                    event.usage,
                    event.agent,
                    event.ttft_ms,
                    event.gaps_ms,
                    tuple(self._logprobs),
                )
                if event.text:
                    return TokenEvent(len(self._token_ids), (), event.text)
            case FestinaError():
                self.error = event
            case Accepted():
                pass
        return None

    def result(self) -> Completion:
        """The whole output of a request that has ended.

        Raises:
            FestinaError: It ended with this error.
        """
        if self.error is not None:
            raise self.error
        if self.completion is None:
            raise RuntimeError("the request has not ended")
        return self.completion
