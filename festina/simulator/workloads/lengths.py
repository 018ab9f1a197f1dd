"""How long prompts and outputs are: pairs from a trace, or a mixture fitted to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from festina.simulator.workloads.folder import trace_file
from festina.workload.trace import read_columns

Tokens = NDArray[np.int64]
INPUT_TOKENS_MAX = 8192
"""Longest prompt of every recipe but `code-agent-long`."""


class Lengths(Protocol):
    """Where pairs of input and output lengths come from."""

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Tokens, Tokens]:
        """Input and output tokens of `size` requests, each int64[size], ≥ 1."""
        ...


@dataclass(frozen=True, slots=True)
class RecordedLengths:
    """Pairs of a trace, drawn with replacement.

    Attributes:
        input_tokens: int64[n].
        output_tokens: int64[n].
    """

    input_tokens: NDArray[Any]
    output_tokens: NDArray[Any]

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Tokens, Tokens]:
        """See `Lengths`."""
        rows = rng.integers(len(self.input_tokens), size=size)
        return self.input_tokens[rows], self.output_tokens[rows]


@dataclass(frozen=True, slots=True)
class MixtureLengths:
    """A mixture of lognormals, fitted to the pairs of a trace by expectation maximisation.

    Input and output are independent within a part, so the parts carry their dependence.

    Attributes:
        parts: float64[k, 5]: weight; mean and deviation of ln(input); of ln(output).
        input_tokens_max: Longest prompt; chosen so that the mean is that of the trace.
        output_tokens_max: Longest output; likewise.
    """

    parts: tuple[tuple[float, float, float, float, float], ...]
    input_tokens_max: int
    output_tokens_max: int
    _table: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_table", np.array(self.parts))

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Tokens, Tokens]:
        """See `Lengths`."""
        weights = self._table[:, 0]
        part = self._table[rng.choice(len(weights), size, p=weights / weights.sum())]
        logs = part[:, [1, 3]] + part[:, [2, 4]] * rng.standard_normal((size, 2))
        tokens = np.rint(np.exp(logs)).astype(np.int64)
        inputs = np.clip(tokens[:, 0], 1, self.input_tokens_max)
        return inputs, np.clip(tokens[:, 1], 1, self.output_tokens_max)


@dataclass(frozen=True, slots=True)
class LengthSource:
    """A trace with lengths, and what stands in for it.

    Attributes:
        file: Its name in the trace folder.
        stand_in: Fitted to that file.
    """

    file: str
    stand_in: MixtureLengths

    def open(self, traces: Path | None) -> Lengths:
        """The trace's pairs, or the stand-in without a folder.

        Raises:
            BadRequestError: The folder lacks the file, or the file is broken.
        """
        if traces is None:
            return self.stand_in
        columns = read_columns(trace_file(traces, self.file))
        return RecordedLengths(columns.input_tokens, columns.output_tokens)


CHAT = LengthSource(  # ShareGPT, as sampled by Aegaeon (SOSP 2025): 876 pairs
    "aegaeon_synth_m32_r0.5.csv.gz",
    MixtureLengths(
        (
            (0.598, 6.72, 0.61, 5.65, 0.61),
            (0.242, 3.23, 1.08, 5.64, 0.59),
            (0.160, 5.30, 2.02, 3.49, 0.58),
        ),
        input_tokens_max=2482,
        output_tokens_max=972,
    ),
)
CONVERSATION = LengthSource(  # Azure LLM inference 2023 (Splitwise, ISCA 2024): 14,176 pairs
    "azure_llm_2023_conv.csv.gz",
    MixtureLengths(
        (
            (0.282, 6.29, 1.33, 4.49, 0.71),
            (0.273, 5.99, 0.05, 4.53, 0.25),
            (0.267, 6.97, 0.08, 6.01, 0.06),
            (0.101, 8.32, 0.02, 4.01, 0.46),
            (0.044, 6.99, 0.08, 6.28, 0.19),
            (0.033, 7.18, 0.02, 5.16, 0.22),
        ),
        input_tokens_max=4643,
        output_tokens_max=566,
    ),
)
CODE = LengthSource(  # Azure LLM inference 2023, code: 7,300 pairs
    "azure_llm_2023_code.csv.gz",
    MixtureLengths(
        (
            (0.457, 7.63, 0.73, 2.33, 0.38),
            (0.229, 5.44, 1.30, 2.49, 0.46),
            (0.224, 7.62, 0.77, 3.50, 0.79),
            (0.090, 6.12, 1.48, 4.02, 1.05),
        ),
        input_tokens_max=9995,
        output_tokens_max=1899,
    ),
)
LONG_CHAT = LengthSource(  # Mooncake (FAST 2025), conversation: 6,758 pairs, 7 % over 32,768
    "mooncake_conversation.csv.gz",
    MixtureLengths(
        (
            (0.618, 9.01, 1.07, 6.02, 0.36),
            (0.281, 8.98, 1.10, 3.96, 1.67),
            (0.102, 6.82, 0.05, 5.00, 1.43),
        ),
        input_tokens_max=131_072,
        output_tokens_max=1200,
    ),
)
ARENA = LengthSource(  # Chatbot Arena, as in Prism (arXiv 2505.04021): 1,500 pairs
    "arena_27models_10min.csv.gz",
    MixtureLengths(
        (
            (0.524, 4.16, 1.45, 5.45, 0.68),
            (0.293, 2.87, 1.79, 3.24, 1.15),
            (0.182, 4.10, 1.37, 6.24, 0.03),
        ),
        input_tokens_max=1790,
        output_tokens_max=781,
    ),
)
