"""Random weights and batches for the tests of the CPU kernels."""

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import quantize

from festina.engine.cpu.kernel_types import FlatBatch, Weight

Kind = GGMLQuantizationType
DENSE = (Kind.F32, Kind.F16, Kind.BF16)
BLOCKS_32 = (Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0)
BLOCKS_256 = (Kind.Q4_K, Kind.Q5_K, Kind.Q6_K)
KINDS = DENSE + BLOCKS_32 + BLOCKS_256

# Where the half-precision scales are in a block; the other bytes may be anything.
_HALVES = {Kind.Q4_K: (0, 2), Kind.Q5_K: (0, 2), Kind.Q6_K: (208,)}


def unaligned(data: np.ndarray) -> np.ndarray:
    """A copy of `data` that starts at an odd address."""
    room = np.empty(data.nbytes + 65, np.uint8)
    start = 1 + -room.ctypes.data % 64
    room[start : start + data.nbytes] = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return room[start : start + data.nbytes]


def packed_rows(rng: np.random.Generator, kind: Kind, rows: int, columns: int) -> np.ndarray:
    """Bytes of a random weight of scale 1 or so."""
    values = rng.standard_normal((rows, columns)).astype(np.float32)
    if kind == Kind.F32:
        return values.view(np.uint8)
    if kind == Kind.F16:
        return values.astype(np.float16).view(np.uint8)
    if kind not in _HALVES:
        return quantize(values, kind)
    block_values, block_bytes = GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (rows * columns // block_values, block_bytes), np.uint8)
    for at in _HALVES[kind]:
        scales = rng.uniform(0.001, 0.01, (len(blocks), 1)).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8)
    return blocks


def random_weight(rng: np.random.Generator, kind: Kind, rows: int, columns: int) -> Weight:
    data = unaligned(packed_rows(rng, kind, rows, columns))
    return Weight(data, int(kind), rows, columns)


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def ints(values: object) -> np.ndarray:
    return np.asarray(values, np.int32)


def flat_batch(
    rng: np.random.Generator, chunks: list[tuple[int, int]], pool_blocks: int
) -> FlatBatch:
    """Chunks (tokens already cached, new tokens) of one sequence each, on scattered blocks."""
    free = rng.permutation(pool_blocks)
    positions, sequences, offsets = [], [], [0]
    for index, (cached, new) in enumerate(chunks):
        positions += range(cached, cached + new)
        sequences += [index] * new
        offsets.append(offsets[-1] + (cached + new + 15) // 16)
    assert offsets[-1] <= pool_blocks
    return FlatBatch(ints(positions), ints(sequences), ints(free[: offsets[-1]]), ints(offsets))
