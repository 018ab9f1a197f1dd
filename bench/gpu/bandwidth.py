"""How fast the current GPU reads its memory, and how fast it copies it."""

from __future__ import annotations

import torch

from festina import _core

from .torch_decode import median_ms

BYTES = 4 * 2**30
"""Many times what any cache holds."""

STEPS = 20
BLOCKS_PER_SM = 8
"""As many blocks of 256 threads as an SM holds."""


def read_bytes_per_s(size: int = BYTES) -> float:
    """By our kernel, which folds all of it into one number and writes nothing else.

    Raises:
        RuntimeError: The number is not that of what was to be read.
    """
    source = torch.empty(size // 4, dtype=torch.int32, device="cuda")
    source.random_(generator=torch.Generator("cuda").manual_seed(0))
    folded = torch.zeros(1, dtype=torch.int32, device="cuda")
    properties = torch.cuda.get_device_properties(source.device)
    blocks = BLOCKS_PER_SM * properties.multi_processor_count

    def read() -> None:
        stream = torch.cuda.current_stream().cuda_stream
        _core.read_memory(source.data_ptr(), size, folded.data_ptr(), blocks, stream)

    read()
    if folded.item() != fold(source):
        raise RuntimeError("what was read is not what is there")
    return size / (median_ms(read, STEPS) / 1e3)


def copy_bytes_per_s(size: int = BYTES) -> float:
    """By PyTorch's copy of a large tensor; a byte that is copied counts twice."""
    source = torch.ones(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2.0 * size / (median_ms(lambda: target.copy_(source), STEPS) / 1e3)


def fold(values: torch.Tensor) -> int:
    """Exclusive or of all, int32 (n,), by halving."""
    while len(values) > 1:
        half = len(values) // 2
        rest = values[2 * half :]
        values = torch.cat((values[:half] ^ values[half : 2 * half], rest))
    return int(values.item())
