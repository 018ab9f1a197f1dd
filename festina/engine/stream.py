"""Tokens to text as they come, cut at stop texts."""

from __future__ import annotations

import codecs

from festina.engine.base import Tokenizer


class OutputText:
    """Text of one growing output: only complete characters, so at most 3 bytes wait for more.

    Text that could begin a stop text is held back until it cannot.

    Args:
        tokenizer: The model's.
        stop: Texts that end the output; they are not part of it.
    """

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def push(self, token_id: int) -> str:
        """Text that `token_id` completes; sets `stopped` when a stop text has appeared."""
        text = self._characters.decode(self._tokenizer.token_bytes(token_id))
        return self._release(self._held + text)

    def flush(self) -> str:
        """All text still held back; the output has ended. An incomplete character gives U+FFFD."""
        text = self._held + self._characters.decode(b"", final=True)
        self._held = ""
        return text

    def _release(self, text: str) -> str:
        found = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
