"""Text ↔ token ids over a vocabulary, wherever it came from.

Encoding is done by `tokenizers`. Decoding is by bytes: every token stands for some, and a text is
their concatenation read as UTF-8. So a stream of tokens (`engine/stream.py`) needs no look-back.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer

from festina.engine.chat import ChatTemplate
from festina.errors import BadRequestError
from festina.messages import ChatTurn

SPACE = "▁"
"""How SentencePiece writes a space."""
END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")
"""Usual names of tokens that end an answer in a chat."""


class TokenKind(enum.IntEnum):
    """What a token is; the values are GGUF's."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class TextTokenizer:
    """A vocabulary and what encodes with it (`Tokenizer` in engine/base.py). Thread-safe.

    Args:
        tokenizer: Encodes; knows its special tokens.
        texts: Of each token.
        kinds: Of each token, `TokenKind` (n,).
        byte_level: Texts are GPT-2's printable characters, one a byte; else SentencePiece's.
        bos: Begins every raw prompt; None where the model wants none.
        end_ids: Tokens that end an output.
        template: Of conversations; None where the model has none.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        kinds: NDArray[np.integer],
        *,
        byte_level: bool,
        bos: int | None,
        end_ids: frozenset[int],
        template: ChatTemplate | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._texts = texts
        self._kinds = kinds
        self._byte_level = byte_level
        self._bos = bos
        self._end_ids = end_ids
        self._template = template
        self._token_characters_max = max(map(len, texts))

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return len(self._texts)

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an output."""
        return self._end_ids

    @property
    def token_characters_max(self) -> int:
        """Characters of the longest token: a text of n has at least n / this many tokens."""
        return self._token_characters_max

    def encode(self, text: str) -> list[int]:
        """Token ids of a raw prompt, with the model's begin-of-text token where it wants one.

        Texts of control tokens (`<|im_end|>`, say) become those tokens.
        """
        ids = self._encode(text)
        if self._bos is not None and ids[:1] != [self._bos]:
            ids.insert(0, self._bos)
        return ids

    def encode_chat(self, turns: tuple[ChatTurn, ...]) -> list[int]:
        """Token ids of a conversation by the model's own template.

        Raises:
            BadRequestError: The template refuses the turns, or the model has none.
        """
        if self._template is None:
            raise BadRequestError(
                "this model has no chat template", field="turns", expected="a raw prompt in `text`"
            )
        return self._encode(self._template.render(turns))

    def decode(self, token_ids: list[int]) -> str:
        """Text of `token_ids`; incomplete characters give U+FFFD, control tokens nothing."""
        return b"".join(map(self.token_bytes, token_ids)).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text; nothing for control tokens.

        Raises:
            IndexError: There is no such token.
        """
        text, kind = self._texts[token_id], self._kinds[token_id]
        if kind in (TokenKind.CONTROL, TokenKind.UNKNOWN, TokenKind.UNUSED):
            return b""
        if kind == TokenKind.BYTE:
            return bytes([int(text[1:-1], 16)])  # "<0x0A>", checked when the file was read
        if kind == TokenKind.USER_DEFINED:
            return text.encode()
        if not self._byte_level:
            return text.replace(SPACE, " ").encode()
        try:
            return bytes(map(_BYTE_OF.__getitem__, text))
        except KeyError:  # a token that was added as plain text
            return text.encode()

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def added_tokens(
    texts: Sequence[str], kinds: NDArray[np.integer], kind: TokenKind
) -> list[AddedToken]:
    """The tokens of a kind, as `tokenizers` takes them: matched as they are."""
    return [
        AddedToken(texts[index], normalized=False, special=kind is TokenKind.CONTROL)
        for index in map(int, np.flatnonzero(kinds == kind))
    ]


def _byte_characters() -> dict[str, int]:
    """GPT-2's printable character of each byte, reversed."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = {chr(byte): byte for byte in printable}
    rest = [byte for byte in range(256) if byte not in characters.values()]
    return characters | {chr(256 + index): byte for index, byte in enumerate(rest)}


_BYTE_OF = _byte_characters()
