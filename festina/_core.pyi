"""Native parts of festina."""

import numpy as np
from numpy.typing import NDArray

from festina.engine.cpu.kernel_types import DecoderShape, DecoderWeights

def build_info() -> dict[str, object]:
    """What this module was built with."""

class CpuWeight:
    """A weight matrix as stored in a GGUF file; `data` is uint8 and kept alive, not copied."""

    def __init__(
        self, data: NDArray[np.uint8], quantisation: int, rows: int, columns: int
    ) -> None: ...
    @property
    def data(self) -> NDArray[np.uint8]: ...
    @property
    def quantisation(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...

class CpuBatch:
    """Where the tokens of a flat batch belong; arrays are kept alive, not copied.

    `positions` (t,), `sequences` (t,) an index per token, `blocks` (b,) the block tables of all
    sequences one after the other, `block_offsets` (s+1,) where each begins.
    """

    def __init__(
        self,
        positions: NDArray[np.int32],
        sequences: NDArray[np.int32],
        blocks: NDArray[np.int32],
        block_offsets: NDArray[np.int32],
    ) -> None: ...
    @property
    def positions(self) -> NDArray[np.int32]: ...
    @property
    def sequences(self) -> NDArray[np.int32]: ...
    @property
    def blocks(self) -> NDArray[np.int32]: ...
    @property
    def block_offsets(self) -> NDArray[np.int32]: ...

class CpuKernels:
    """Kernels of one instruction set; see `festina.engine.cpu.kernel_types.Kernels`."""

    def __init__(self, isa: str = "") -> None: ...
    @property
    def isa(self) -> str: ...
    def matmul(
        self,
        x: NDArray[np.float32],
        weight: CpuWeight,
        out: NDArray[np.float32],
        accumulate: bool = False,
    ) -> None: ...
    def embed(
        self,
        weight: CpuWeight,
        rows: NDArray[np.int32],
        scale: float,
        out: NDArray[np.float32],
    ) -> None: ...
    def rms_norm(
        self,
        x: NDArray[np.float32],
        gain: NDArray[np.float32],
        eps: float,
        out: NDArray[np.float32],
    ) -> None: ...
    def rope(
        self,
        x: NDArray[np.float32],
        cosines: NDArray[np.float32],
        sines: NDArray[np.float32],
        style: str,
    ) -> None: ...
    def gate(self, gate: NDArray[np.float32], up: NDArray[np.float32], activation: str) -> None: ...
    def add(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> None: ...
    def store_kv(
        self,
        k: NDArray[np.float32],
        v: NDArray[np.float32],
        batch: CpuBatch,
        keys: NDArray[np.float32],
        values: NDArray[np.float32],
    ) -> None: ...
    def attention(
        self,
        q: NDArray[np.float32],
        batch: CpuBatch,
        keys: NDArray[np.float32],
        values: NDArray[np.float32],
        scale: float,
        window: int,
        out: NDArray[np.float32],
    ) -> None: ...
    def argmax(self, x: NDArray[np.float32], out: NDArray[np.int32]) -> None: ...

class CpuDecoder:
    """All layers of a decoder; see `festina.engine.cpu.kernels.make_decoder`."""

    def __init__(
        self,
        isa: str,
        shape: DecoderShape,
        weights: DecoderWeights,
        keys: NDArray[np.float32],
        values: NDArray[np.float32],
    ) -> None: ...
    def forward(
        self,
        token_ids: NDArray[np.int32],
        batch: CpuBatch,
        logit_rows: NDArray[np.int32],
        logits: NDArray[np.float32],
    ) -> None: ...

def cpu_isas() -> list[str]:
    """Instruction sets this machine has kernels for, best first."""
