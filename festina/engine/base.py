"""What an engine is: the contract between the agent's scheduling and the code that runs models.

The agent owns sequences, KV block tables and the order of steps. The engine owns weights, the KV
pool and arithmetic. A step is stateless with respect to scheduling: a `Chunk` carries all that is
needed to compute it, so preemption and migration need no engine state but the KV blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from festina.config import DeploymentConfig
from festina.messages import ChatTurn
from festina.types import Logprobs, OperatingPoint, Sampling, SmPartition

BLOCK_TOKENS = 16
"""Tokens in one KV block."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a decoder that scheduling and energy need.

    Attributes:
        parameters: Weights that a token multiplies with (embedding look-ups excluded).
        weight_bytes: Bytes read to run one token through all layers and the head.
        kv_bytes_per_token: KV cache bytes of one token over all layers.
        context_tokens: Longest prompt plus output.
        vocabulary: Number of token ids.
    """

    parameters: int
    weight_bytes: int
    kv_bytes_per_token: int
    context_tokens: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """The new tokens of one sequence in one step.

    Attributes:
        token_ids: int32 (n,), n ≥ 1: prompt tokens of a prefill chunk, or the last output token.
        start: Tokens of this sequence already in the cache.
        blocks: int32 (b,): block table with b·BLOCK_TOKENS ≥ start + n.
        sampling: How to choose the next token; None for a chunk that does not end the prompt.
        output_index: Index of the token to choose, for seeded draws.
    """

    token_ids: NDArray[np.int32]
    start: int
    blocks: NDArray[np.int32]
    sampling: Sampling | None
    output_index: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One step of one deployment: prefill chunks and decodes together, flat.

    Attributes:
        model: Deployment name.
        chunks: At least one.
        point: Clock and SMs it was planned for.
        partition: Where it runs; rung 0 is the whole device.
        predicted_ms: How long it should take; 0 where nobody knows.
    """

    model: str
    chunks: tuple[Chunk, ...]
    point: OperatingPoint
    partition: SmPartition
    predicted_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step produced and took.

    Attributes:
        token_ids: Per chunk the chosen token, or None where `sampling` was None.
        latency_ms: Measured duration on the device.
        flops: Arithmetic done, for the energy model.
        bytes_moved: Weights and KV read or written, for the energy model.
        logprobs: Per chunk how likely its token was, or None where `sampling` did not ask; empty
            where none did.
    """

    token_ids: tuple[int | None, ...]
    latency_ms: float
    flops: float
    bytes_moved: float
    logprobs: tuple[Logprobs | None, ...] = ()


class Tokenizer(Protocol):
    """Text ↔ token ids of one deployment. Thread-safe."""

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an output."""

    @property
    def token_characters_max(self) -> int:
        """Characters of the longest token: a text of n has at least n / this many tokens."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a raw prompt, with the model's begin-of-text token where it wants one."""

    def encode_chat(self, turns: tuple[ChatTurn, ...]) -> list[int]:
        """Token ids of a conversation by the model's own template.

        Raises:
            BadRequestError: The template refuses the turns, or the model has none.
        """

    def token_bytes(self, token_id: int) -> bytes:
        """UTF-8 that a token adds to an output, perhaps part of a character; b"" if it is control.

        The text of an output is that of its tokens' bytes, one after the other.
        """

    def decode(self, token_ids: list[int]) -> str:
        """Text of `token_ids`; incomplete characters give U+FFFD."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A resident deployment.

    Attributes:
        model: Deployment name.
        shape: Its sizes.
        kv_blocks: Blocks in its KV pool; ids are 0 … kv_blocks-1.
        tokenizer: Its tokenizer.
        has_logits: Whether it can tell how likely tokens were.
    """

    model: str
    shape: ModelShape
    kv_blocks: int
    tokenizer: Tokenizer
    has_logits: bool = True


class Engine(Protocol):
    """Runs the models that are resident on one device.

    Not thread-safe: all calls come from the agent's one compute thread. `step` may release the GIL.
    An engine in a process of its own (`festina.engine.hosted`) may be lost: then every call raises
    `EngineLostError`, until it is woken and has nothing resident.
    """

    def load(self, deployment: DeploymentConfig) -> LoadedModel:
        """Make a deployment resident, with its own weights and KV pool.

        Raises:
            WeightsError: The file is missing, truncated or inconsistent.
            UnsupportedModelError: Its architecture or quantisation is not implemented.
            DeviceError: It does not fit.
        """

    def unload(self, model: str) -> None:
        """Give weights and KV pool back. Unknown names are an error of the caller (KeyError)."""

    def step(self, batch: Batch) -> StepResult:
        """Compute one step.

        Raises:
            EngineError: The step failed; the KV blocks of its chunks are undefined.
        """

    def export_blocks(self, model: str, blocks: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Contents of KV blocks, uint8 (len(blocks), bytes per block), a copy."""

    def import_blocks(self, model: str, blocks: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Write what `export_blocks` gave into other blocks of the same deployment's pool.

        Raises:
            EngineError: `data` has another shape than this pool's blocks.
        """
