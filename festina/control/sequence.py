"""A request as scheduling sees it: its tokens, its KV blocks and its deadlines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from festina.types import Slo


class BlockPool(Protocol):
    """The KV blocks of one model. An allocation that does not fit changes nothing."""

    @property
    def total(self) -> int:
        """Blocks in the pool."""

    @property
    def free(self) -> int:
        """Blocks not handed out."""

    def allocate(self, count: int) -> list[int] | None:
        """`count` block ids, or None when fewer are free."""

    def release(self, blocks: list[int]) -> None:
        """Give blocks back. A block that is not handed out raises ValueError."""


@dataclass(slots=True, eq=False)
class Sequence:
    """One request on one device. Owned by the `LocalScheduler` between `add` and `remove`.

    Attributes:
        number: Order of arrival at this device; unique.
        model: Deployment name.
        token_ids: Prompt and output so far; what a preempted request is prefilled with again.
        prompt_tokens: How many of them are prompt, ≥ 1.
        max_tokens: Upper bound of the output.
        slo: Its objectives.
        pace: 0 as fast as possible … 1 use all the slack.
        submitted_at: When the client asked, in seconds of the agent's clock.
        predicted_tokens: Output length that memory is set aside for.
        cached: Tokens in the KV cache.
        blocks: Its KV blocks, in order.
        last_token_at: When its last token came out; `submitted_at` before the first.
        runnable_at: Since when it has waited for the step that it needs next.
        outgrown: It has become longer than was predicted at first (paper section 3.4).
        preemptions: Times it lost its blocks.
        in_step: Part of a step that has not been settled.
        removed: Gone, but its blocks are still used by that step.
        held: Not to be put into a step, and its blocks not to be taken: it is between two devices.
        ahead: Only its tokens go through the model, and none is chosen: another device has it
            still, and will hand it over.
    """

    number: int
    model: str
    token_ids: list[int]
    prompt_tokens: int
    max_tokens: int
    slo: Slo
    pace: float
    submitted_at: float
    predicted_tokens: int
    cached: int = 0
    blocks: list[int] = field(default_factory=list)
    last_token_at: float = 0.0
    runnable_at: float = 0.0
    outgrown: bool = False
    preemptions: int = 0
    in_step: bool = False
    removed: bool = False
    held: bool = False
    ahead: bool = False

    @property
    def output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.prompt_tokens

    @property
    def pending_tokens(self) -> int:
        """Tokens that must go through the model before the next one can be chosen."""
        return len(self.token_ids) - self.cached

    @property
    def decoding(self) -> bool:
        """Whether one decode step gives the next token."""
        length = len(self.token_ids)
        last = length - self.cached == 1 and length > self.prompt_tokens and self.cached > 0
        return last and not self.ahead

    @property
    def expected_tokens(self) -> int:
        """Tokens of context it is expected to need in the end."""
        next_output = len(self.token_ids) - self.prompt_tokens + 1
        output = self.predicted_tokens if self.predicted_tokens > next_output else next_output
        return self.prompt_tokens + (output if output < self.max_tokens else self.max_tokens)

    def due_at(self, margin: float) -> float:
        """When its next token must be out: TTFT before the first one, TBT after it.

        Args:
            margin: Share of the objective kept in reserve.
        """
        if self.output_tokens == 0:
            return self.submitted_at + self.slo.ttft_ms * (1.0 - margin) / 1e3
        return self.last_token_at + self.slo.tbt_ms * (1.0 - margin) / 1e3

    def paced_at(self, margin: float) -> float:
        """When its next token should be out: no sooner is needed (DESIGN 4.2, pace)."""
        return self.last_token_at + self.pace * self.slo.tbt_ms * (1.0 - margin) / 1e3
