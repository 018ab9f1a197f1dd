"""How likely tokens were, in OpenAI's two shapes."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Protocol

from festina.gateway.parameters import Call
from festina.messages import LikelyToken, TokenLogprobs

Shape = dict[str, object]


class Teller(Protocol):
    """Tells the logprobs of one choice, token after token."""

    def tell(self, tokens: Iterable[TokenLogprobs]) -> Shape | None:
        """What to say of the next tokens; None for none, as where nobody asked."""


def tellers(call: Call) -> list[Teller]:
    """One for each choice of a call."""
    return [_Chat() if call.kind == "chat" else _Text() for _ in call.jobs]


class _Chat:
    """Chat completions: an object for each token."""

    def tell(self, tokens: Iterable[TokenLogprobs]) -> Shape | None:
        """See `Teller`."""
        content = [
            _entry(token.chosen) | {"top_logprobs": [_entry(one) for one in token.top]}
            for token in tokens
        ]
        return {"content": content, "refusal": None} if content else None


class _Text:
    """Completions: lists side by side, and where in the output each token begins."""

    def __init__(self) -> None:
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def tell(self, tokens: Iterable[TokenLogprobs]) -> Shape | None:
        """See `Teller`."""
        told = list(tokens)
        if not told:
            return None
        offsets = []
        for token in told:
            offsets.append(self._offset)
            self._offset += len(self._characters.decode(token.chosen.data))
        return {
            "tokens": [_name(token.chosen.data) for token in told],
            "token_logprobs": [token.chosen.logprob for token in told],
            "top_logprobs": [_rivals(token) for token in told],
            "text_offset": offsets,
        }


def _entry(token: LikelyToken) -> Shape:
    text = token.data.decode(errors="replace")
    return {"token": text, "logprob": token.logprob, "bytes": list(token.data)}


def _rivals(token: TokenLogprobs) -> dict[str, float]:
    """The likeliest by name, and the chosen one; of two with one name the likelier."""
    named: dict[str, float] = {}
    for one in (*token.top, token.chosen):
        named.setdefault(_name(one.data), one.logprob)
    return named


def _name(data: bytes) -> str:
    """A token as text; its bytes, as OpenAI writes them, where it is a part of a character."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
