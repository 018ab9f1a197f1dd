"""The tokenizer of simulated models: one token a byte."""

from __future__ import annotations

from festina.messages import ChatTurn


class SimulatedTokenizer:
    """UTF-8 bytes as token ids 0-255, and one end token (`Tokenizer` in engine/base.py).

    Simulated models answer in printable ASCII and never choose the end token: `max_tokens` ends
    their outputs, as load generators want it.
    """

    end_id = 256
    vocabulary = 257
    token_characters_max = 1
    first_printable = 32
    printable = 95

    @property
    def end_ids(self) -> frozenset[int]:
        """The end token."""
        return frozenset((self.end_id,))

    def encode(self, text: str) -> list[int]:
        """The text's bytes."""
        return list(text.encode("utf-8"))

    def encode_chat(self, turns: tuple[ChatTurn, ...]) -> list[int]:
        """One line a turn, as "role: content", and the assistant's line opened."""
        lines = [f"{turn.role}: {turn.content}\n" for turn in turns]
        return self.encode("".join([*lines, "assistant: "]))

    def token_bytes(self, token_id: int) -> bytes:
        """The byte; nothing for the end token."""
        return bytes((token_id,)) if token_id < self.end_id else b""

    def decode(self, token_ids: list[int]) -> str:
        """The bytes' text; the end token gives none, incomplete characters give U+FFFD."""
        return bytes(i for i in token_ids if i < self.end_id).decode("utf-8", errors="replace")
