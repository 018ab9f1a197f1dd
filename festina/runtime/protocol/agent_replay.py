"""What a client has been told of a request that moved here, so that none of it can be missed."""

from __future__ import annotations

from collections.abc import Sequence

from festina.engine.stream import OutputText
from festina.messages import Failed, Finished, TokenLogprobs, Tokens


class Replay:
    """The output so far, token by token, and how it ended.

    The client hears the first part from the agent that had the request before, over another link:
    nothing orders the two, so it may ask for any part of the output again.

    Args:
        request_id: As submitted.
        decoder: Fresh; it is brought to where the output is.
        output_ids: Tokens that other agents have sent.
        logprobs: What they told with each.

    Attributes:
        ended_at: When the request ended here; None while it has not.
    """

    def __init__(
        self,
        request_id: str,
        decoder: OutputText,
        output_ids: tuple[int, ...],
        logprobs: Sequence[tuple[TokenLogprobs, ...]],
    ) -> None:
        self.ended_at: float | None = None
        self._request_id = request_id
        self._output = [
            (token_id, decoder.push(token_id), told)
            for token_id, told in zip(output_ids, logprobs, strict=True)
        ]
        self._last: Finished | Failed | None = None

    @property
    def outputs(self) -> int:
        """Tokens so far."""
        return len(self._output)

    def keep(self, message: Tokens | Finished | Failed) -> None:
        """Something that its client is told, or would be."""
        if isinstance(message, Tokens):
            self._output += [
                (token_id, message.text, message.logprobs) for token_id in message.token_ids
            ]
        else:
            self._last = message

    def after(self, received: int) -> list[Tokens | Finished | Failed]:
        """All that a client with so many tokens has not got."""
        missing: list[Tokens | Finished | Failed] = [
            Tokens(self._request_id, received + offset, (token_id,), text, told)
            for offset, (token_id, text, told) in enumerate(self._output[received:])
        ]
        return missing if self._last is None else [*missing, self._last]
