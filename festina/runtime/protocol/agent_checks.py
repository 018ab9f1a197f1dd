"""Is this `Generate` one that can be run? Pure checks, each error naming its field."""

from __future__ import annotations

from festina.config import DeploymentConfig
from festina.engine.base import BLOCK_TOKENS, LoadedModel, Tokenizer
from festina.errors import BadRequestError, ContextLimitError
from festina.messages import Generate
from festina.types import LOGPROBS_MAX, Sampling, Slo

TEMPERATURE_MAX = 10.0
STOPS_MAX = 4
STOP_CHARACTERS_MAX = 256
DURATION_MS_MAX = 1e9


def check_generate(message: Generate) -> None:
    """Everything that can be told without the model.

    Raises:
        BadRequestError: A field is out of range.
    """
    _check_prompt(message)
    _check_sampling(message.sampling)
    if message.slo is not None:
        _check_slo(message.slo)
    if not 0.0 <= message.elapsed_ms <= DURATION_MS_MAX:
        raise _bad("elapsed_ms", message.elapsed_ms, f"a duration in [0, {DURATION_MS_MAX:g}] ms")
    if message.pace is not None and not 0.0 <= message.pace <= 1.0:
        raise _bad("pace", message.pace, "a number in [0, 1]")
    if len(message.received) > message.max_tokens:
        raise _bad(
            "received",
            f"{len(message.received)} tokens",
            f"at most max_tokens={message.max_tokens}",
        )


def tokenize(message: Generate, tokenizer: Tokenizer, vocabulary: int) -> list[int]:
    """The prompt's token ids, at least one.

    Raises:
        BadRequestError: The prompt has no token, or one that the model does not know.
    """
    _check_ids("received", message.received, vocabulary)
    if message.token_ids:
        _check_ids("token_ids", message.token_ids, vocabulary)
        return list(message.token_ids)
    ids = tokenizer.encode_chat(message.turns) if message.turns else tokenizer.encode(message.text)
    if not ids:
        raise _bad(prompt_field(message), "", "a prompt of at least one token")
    return ids


def _check_ids(field: str, ids: tuple[int, ...], vocabulary: int) -> None:
    if not ids:
        return
    largest, smallest = max(ids), min(ids)
    if smallest < 0 or largest >= vocabulary:
        wrong = smallest if smallest < 0 else largest
        raise _bad(field, wrong, f"ids in [0, {vocabulary})")


def check_text_length(message: Generate, deployment: DeploymentConfig, loaded: LoadedModel) -> None:
    """Whether the prompt's text may fit, told without reading it.

    Tokenising megabytes takes seconds, in which an agent would look dead to everyone.

    Raises:
        ContextLimitError: It is too long even if it were all longest tokens.
    """
    limit, what = _limit(deployment, loaded)
    characters_max = limit * loaded.tokenizer.token_characters_max
    characters = len(message.text) + sum(len(turn.content) for turn in message.turns)
    if characters > characters_max:
        raise ContextLimitError(
            f"a prompt of {characters} characters",
            field=prompt_field(message),
            expected=f"fewer than {limit} tokens ({what}), so at most {characters_max} characters",
        )


def check_logprobs(message: Generate, loaded: LoadedModel) -> None:
    """Whether the engine can tell how likely tokens are, if that is asked for.

    Raises:
        BadRequestError: It cannot.
    """
    if message.sampling.logprobs is not None and not loaded.has_logits:
        raise BadRequestError(
            "this engine has no logits", field="sampling.logprobs", expected="none to be asked for"
        )


def check_fits(
    message: Generate, input_tokens: int, deployment: DeploymentConfig, loaded: LoadedModel
) -> None:
    """Prompt and output must fit the context and the KV pool.

    Raises:
        ContextLimitError: They do not; the field is the prompt where it is too long on its own.
    """
    limit, what = _limit(deployment, loaded)
    if input_tokens >= limit:
        raise ContextLimitError(
            f"a prompt of {input_tokens} tokens leaves no room for output",
            field=prompt_field(message),
            expected=f"fewer than {limit} tokens ({what})",
        )
    if input_tokens + message.max_tokens > limit:
        raise ContextLimitError(
            f"{input_tokens} prompt tokens and {message.max_tokens} of output",
            field="max_tokens",
            expected=f"at most {limit - input_tokens} ({what} of {limit} tokens)",
        )


def _limit(deployment: DeploymentConfig, loaded: LoadedModel) -> tuple[int, str]:
    """Tokens that prompt and output may have together, and what sets that limit."""
    context = min(deployment.context_tokens, loaded.shape.context_tokens)
    pool = loaded.kv_blocks * BLOCK_TOKENS
    return (context, "context") if context <= pool else (pool, "KV cache")


def prompt_field(message: Generate) -> str:
    """Which field holds the prompt."""
    if message.token_ids:
        return "token_ids"
    return "turns" if message.turns else "text"


def _check_prompt(message: Generate) -> None:
    given = [bool(message.text), bool(message.turns), bool(message.token_ids)]
    if sum(given) == 0:
        raise BadRequestError(
            "an empty prompt", field="text", expected="text, turns or token_ids that is not empty"
        )
    if sum(given) > 1:
        raise BadRequestError(
            "more than one prompt",
            field=prompt_field(message),
            expected="exactly one of text, turns and token_ids",
        )


def _check_sampling(sampling: Sampling) -> None:
    if not 0.0 <= sampling.temperature <= TEMPERATURE_MAX:
        raise _bad(
            "sampling.temperature", sampling.temperature, f"a number in [0, {TEMPERATURE_MAX:g}]"
        )
    if not 0.0 < sampling.top_p <= 1.0:
        raise _bad("sampling.top_p", sampling.top_p, "a number in (0, 1]")
    if sampling.seed < 0:
        raise _bad("sampling.seed", sampling.seed, "at least 0")
    if sampling.logprobs is not None and not 0 <= sampling.logprobs <= LOGPROBS_MAX:
        raise _bad("sampling.logprobs", sampling.logprobs, f"none, or 0 to {LOGPROBS_MAX}")
    if len(sampling.stop) > STOPS_MAX:
        raise _bad("sampling.stop", f"{len(sampling.stop)} texts", f"at most {STOPS_MAX}")
    for index, text in enumerate(sampling.stop):
        if not 0 < len(text) <= STOP_CHARACTERS_MAX:
            raise _bad(
                f"sampling.stop[{index}]",
                f"a text of {len(text)} characters",
                f"1 to {STOP_CHARACTERS_MAX}",
            )


def _check_slo(slo: Slo) -> None:
    for name, value in (("slo.ttft_ms", slo.ttft_ms), ("slo.tbt_ms", slo.tbt_ms)):
        if not 0.0 < value <= DURATION_MS_MAX:  # NaN fails too
            raise _bad(name, value, f"a duration above 0 and at most {DURATION_MS_MAX:g} ms")


def _bad(field: str, value: object, expected: str) -> BadRequestError:
    return BadRequestError(f"{value} is not allowed", field=field, expected=expected)
