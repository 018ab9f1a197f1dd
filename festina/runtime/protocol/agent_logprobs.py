"""How likely the tokens of a request were: told to its client, and taken along when it moves."""

from __future__ import annotations

from collections.abc import Sequence

from festina.engine.base import Tokenizer
from festina.errors import ProtocolError
from festina.messages import LikelyToken, TokenLogprobs
from festina.types import Logprobs


def spell(
    tokenizer: Tokenizer, token_id: int, logprobs: Logprobs | None
) -> tuple[TokenLogprobs, ...]:
    """What `Tokens` tells of one token; () where nothing is known."""
    if logprobs is None:
        return ()
    top = (_likely(tokenizer, token, logprob) for token, logprob in logprobs.top)
    return (TokenLogprobs(_likely(tokenizer, token_id, logprobs.chosen), tuple(top)),)


def count(logprobs: Sequence[Logprobs | None]) -> int:
    """Logarithms in all."""
    return sum(1 + len(one.top) for one in logprobs if one is not None)


def check_moved(logprobs: Sequence[Logprobs | None], outputs: int, vocabulary: int) -> None:
    """Whether they can be those of an output of so many tokens; none at all can.

    Raises:
        ProtocolError: They cannot.
    """
    if len(logprobs) not in (0, outputs):
        raise ProtocolError(
            f"{len(logprobs)} of them", field="state.logprobs", expected=f"none or {outputs}"
        )
    ids = [token for one in logprobs if one is not None for token, _ in one.top]
    if ids and max(ids) >= vocabulary:
        raise ProtocolError("unknown tokens", field="state.logprobs", expected="token ids")


def _likely(tokenizer: Tokenizer, token_id: int, logprob: float) -> LikelyToken:
    return LikelyToken(token_id, tokenizer.token_bytes(token_id), logprob)
