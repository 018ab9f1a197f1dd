"""Tokens to text as they come, cut at stop texts."""

from __future__ import annotations

from festina.engine.base import Tokenizer

_INCOMPLETE = "\ufffd"
_BYTES_MAX = 4
"""Longest incomplete character: after so many tokens U+FFFD is what the model wrote."""


class OutputText:
    """Text of one growing output. Text that could begin a stop text is held back until it cannot.

    Args:
        tokenizer: The model's.
        stop: Texts that end the output; they are not part of it.
    """

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._context: list[int] = []
        self._fresh: list[int] = []
        self._held = ""
        self.stopped = False

    def push(self, token_id: int) -> str:
        """Text that `token_id` completes; sets `stopped` when a stop text has appeared."""
        self._fresh.append(token_id)
        text = self._fresh_text()
        if text.endswith(_INCOMPLETE) and len(self._fresh) < _BYTES_MAX:
            return ""
        self._context, self._fresh = self._fresh, []
        return self._release(self._held + text)

    def flush(self) -> str:
        """All text still held back; the output has ended."""
        text = self._held + self._fresh_text()
        self._held, self._fresh = "", []
        return text

    def _fresh_text(self) -> str:
        """Text of the tokens not yet decoded; some tokenizers need the ones before for spaces."""
        if not self._fresh:
            return ""
        before = self._tokenizer.decode(self._context)
        return self._tokenizer.decode(self._context + self._fresh)[len(before) :]

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
