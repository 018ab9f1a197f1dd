"""What moves of requests ask the shell of an agent to do, besides sending."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AGENTS = "agents"
"""The links to other agents; `Send.peer` names one by its endpoint's bytes."""


@dataclass(frozen=True, slots=True)
class ConnectAgent:
    """Open a link to the agent that listens at `endpoint` and has this public key, if any."""

    endpoint: str
    server_key: str = ""


@dataclass(frozen=True, slots=True)
class DisconnectAgent:
    """Close that link."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class ExportBlocks:
    """Read KV blocks of a request between steps, and report with `on_exported(key, …)`.

    Attributes:
        key: Of the move.
        model: Deployment name.
        blocks: int32 (n,): which blocks of the engine's pool.
        first: Index of the first of them in the request.
        window: Block n goes to place n modulo `window` of the memory shared for this move; 0: to
            the caller.
    """

    key: str
    model: str
    blocks: NDArray[np.int32]
    first: int
    window: int


@dataclass(frozen=True, slots=True)
class ImportBlocks:
    """Write KV blocks of a request between steps, and report with `on_imported(key, …)`.

    Attributes:
        key: Of the move.
        model: Deployment name.
        blocks: int32 (n,): which blocks of the engine's pool.
        first: Index of the first of them in the request.
        block_bytes: Size of a block.
        data: n·block_bytes; b"" where they are in shared memory.
        memory: Where that is.
        window: As in `ExportBlocks`.
    """

    key: str
    model: str
    blocks: NDArray[np.int32]
    first: int
    block_bytes: int
    data: bytes
    memory: str
    window: int


@dataclass(frozen=True, slots=True)
class EndMove:
    """Give back what is shared for a move, once what was asked for it before is done."""

    key: str


@dataclass(frozen=True, slots=True)
class Exported:
    """Outcome of `ExportBlocks`.

    Attributes:
        block_bytes: Size of a block.
        data: The blocks one after the other; b"" where they are in shared memory.
        memory: Where that is.
    """

    block_bytes: int
    data: bytes
    memory: str


BlockEffect = ExportBlocks | ImportBlocks | EndMove
LinkEffect = ConnectAgent | DisconnectAgent
