"""Answers in OpenAI's shapes: whole ones, and the chunks of a stream as server-sent events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from festina.gateway.parameters import Call, Kind
from festina.types import FinishReason, Usage

DONE = b"data: [DONE]\n\n"
MIXED = "mixed"
"""Source of an energy that is partly measured and partly modelled: such are not added up."""

_encode = msgspec.json.Encoder().encode


def event(data: bytes) -> bytes:
    """JSON as one server-sent event. JSON has no line breaks, so one line holds it."""
    return b"data: " + data + b"\n\n"


def usage_of(usages: Sequence[Usage], choices_per_prompt: int) -> dict[str, object]:
    """What a call cost; a prompt counts once, however many outputs it had.

    Args:
        usages: Of each choice, those of one prompt side by side.
        choices_per_prompt: How many that are.

    Returns:
        Counts and joules; `resumptions` where streams had to go on elsewhere.
    """
    counts = tokens_of(
        sum(usage.input_tokens for usage in usages[::choices_per_prompt]),
        sum(usage.output_tokens for usage in usages),
    )
    resumptions = sum(usage.resumptions for usage in usages)
    if resumptions:
        counts["resumptions"] = resumptions
    sources = {usage.energy_source for usage in usages}
    if len(sources) > 1:
        return counts | {"energy_joules": None, "energy_source": MIXED}
    energy_j = sum(usage.energy_j for usage in usages)
    return counts | {"energy_joules": energy_j, "energy_source": sources.pop()}


def tokens_of(prompt: int, completion: int) -> dict[str, object]:
    """Token counts as OpenAI names them."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


class Chunks:
    """The chunks of one stream.

    Args:
        call: What was asked.
    """

    def __init__(self, call: Call) -> None:
        self._chat = call.kind == "chat"
        self._told_usage = call.include_usage or call.running_usage
        self._head = _head(call, "chat.completion.chunk" if self._chat else "text_completion")

    def role(self, index: int) -> bytes:
        """Opens a choice of a chat; nothing for plain text."""
        if not self._chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        return self._chunk([_choice(index, {"delta": delta}, None)], None)

    def text(
        self,
        index: int,
        text: str,
        reason: FinishReason | None = None,
        usage: dict[str, object] | None = None,
        logprobs: dict[str, object] | None = None,
    ) -> bytes:
        """New text of a choice, how likely its tokens were, and why it ended if it did."""
        if self._chat:
            body: dict[str, object] = {"delta": {"content": text} if text or not reason else {}}
        else:
            body = {"text": text}
        return self._chunk([_choice(index, body, reason, logprobs)], usage)

    def usage(self, usage: dict[str, object]) -> bytes:
        """The last chunk, which has no choices."""
        return self._chunk([], usage)

    def _chunk(self, choices: list[dict[str, object]], usage: dict[str, object] | None) -> bytes:
        chunk = self._head | {"choices": choices}
        if self._told_usage:
            chunk["usage"] = usage
        return event(_encode(chunk))


def whole(
    call: Call,
    texts: Sequence[str],
    reasons: Sequence[FinishReason],
    usage: dict[str, object],
    logprobs: Sequence[dict[str, object] | None],
) -> bytes:
    """The answer to a call that does not stream.

    Args:
        call: What was asked.
        texts: Output of each choice.
        reasons: Why each ended.
        usage: What all cost.
        logprobs: How likely the tokens of each were; None unless that was asked for.
    """
    choices = [
        _choice(index, _output(call.kind, text), reason, told)
        for index, (text, reason, told) in enumerate(zip(texts, reasons, logprobs, strict=True))
    ]
    head = _head(call, "chat.completion" if call.kind == "chat" else "text_completion")
    return _encode(head | {"choices": choices, "usage": usage})


def _output(kind: Kind, text: str) -> dict[str, object]:
    if kind == "text":
        return {"text": text}
    return {"message": {"role": "assistant", "content": text, "refusal": None}}


def _head(call: Call, kind: str) -> dict[str, Any]:
    return {"id": call.id, "object": kind, "created": int(time.time()), "model": call.model}


def _choice(
    index: int,
    body: dict[str, object],
    reason: FinishReason | None,
    logprobs: dict[str, object] | None = None,
) -> dict[str, object]:
    return {"index": index} | body | {"logprobs": logprobs, "finish_reason": reason}
