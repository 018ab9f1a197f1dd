"""GGUF's quantised blocks to numbers, in tensor operations: on the device, not on the host.

The arithmetic is that of the package `gguf` (`gguf/quants.py`), against which tests check it bit
for bit. All functions take uint8 (blocks, bytes per block) and give float32 (blocks, values).
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import torch

from festina.engine.gguf_file import Tensor, TensorType

CHUNK_VALUES = 1 << 24
"""Values that are float32 at a time: 64 MiB."""


def fill(out: torch.Tensor, tensor: Tensor) -> None:
    """Write the numbers of `tensor` to `out` (rows, columns), of any float type and device."""
    rows_at_once = max(1, CHUNK_VALUES // tensor.columns)
    for start in range(0, tensor.rows, rows_at_once):
        part = slice(start, min(start + rows_at_once, tensor.rows))
        packed = torch.from_numpy(tensor.data[part].copy()).to(out.device)
        out[part] = _numbers(packed, tensor.type).view(out[part].shape)


def _numbers(packed: torch.Tensor, kind: TensorType) -> torch.Tensor:
    if kind in _PLAIN:
        return packed.view(_PLAIN[kind])
    return _UNPACK[kind](packed.reshape(-1, kind.block[1]))


def _half(block: torch.Tensor, at: int) -> torch.Tensor:
    return block[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Low halves of all bytes, then high halves."""
    return torch.cat([packed & 0x0F, packed >> 4], dim=-1)


def _fifth_bits(block: torch.Tensor, at: int) -> torch.Tensor:
    """Bit 4 of 32 values, in the order of `_nibbles`."""
    bits = torch.arange(8, dtype=torch.uint8, device=block.device)
    return ((block[:, at : at + 4, None] >> bits) & 1).reshape(-1, 32) << 4


def _q4_0(block: torch.Tensor) -> torch.Tensor:
    return _half(block, 0) * (_nibbles(block[:, 2:]).float() - 8.0)


def _q4_1(block: torch.Tensor) -> torch.Tensor:
    return _half(block, 0) * _nibbles(block[:, 4:]).float() + _half(block, 2)


def _q5_0(block: torch.Tensor) -> torch.Tensor:
    values = _nibbles(block[:, 6:]) | _fifth_bits(block, 2)
    return _half(block, 0) * (values.float() - 16.0)


def _q5_1(block: torch.Tensor) -> torch.Tensor:
    values = _nibbles(block[:, 8:]) | _fifth_bits(block, 4)
    return _half(block, 0) * values.float() + _half(block, 2)


def _q8_0(block: torch.Tensor) -> torch.Tensor:
    return _half(block, 0) * block[:, 2:].contiguous().view(torch.int8).float()


def _scales_and_minima(block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the eight groups of a K block with minima, float32 (blocks, 8, 1) each."""
    scales, minima, tops = block[:, 4:8], block[:, 8:12], block[:, 12:16]
    scale = torch.cat([scales & 0x3F, (tops & 0x0F) | ((scales >> 2) & 0x30)], dim=-1)
    minimum = torch.cat([minima & 0x3F, (tops >> 4) | ((minima >> 2) & 0x30)], dim=-1)
    return (
        (_half(block, 0) * scale.float())[..., None],
        (_half(block, 2) * minimum.float())[..., None],
    )


def _k_nibbles(packed: torch.Tensor, group: int) -> torch.Tensor:
    """Per `group` bytes their low halves, then their high halves: uint8 (blocks, groups, 32)."""
    grouped = packed.reshape(len(packed), -1, 1, group)
    return torch.cat([grouped & 0x0F, grouped >> 4], dim=2).reshape(len(packed), -1, 32)


def _q4_k(block: torch.Tensor) -> torch.Tensor:
    scale, minimum = _scales_and_minima(block)
    return (scale * _k_nibbles(block[:, 16:], 32).float() - minimum).reshape(len(block), -1)


def _q5_k(block: torch.Tensor) -> torch.Tensor:
    scale, minimum = _scales_and_minima(block)
    bits = torch.arange(8, dtype=torch.uint8, device=block.device)[:, None]
    tops = ((block[:, None, 16:48] >> bits) & 1) << 4
    values = _k_nibbles(block[:, 48:], 32) | tops
    return (scale * values.float() - minimum).reshape(len(block), -1)


def _q6_k(block: torch.Tensor) -> torch.Tensor:
    scale = block[:, 192:208].contiguous().view(torch.int8).float()
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=block.device)[:, None]
    tops = (block[:, 128:192].reshape(len(block), -1, 1, 32) >> shifts) & 3
    values = _k_nibbles(block[:, :128], 64) | (tops.reshape(len(block), -1, 32) << 4)
    centred = (values.to(torch.int8) - 32).float().reshape(len(block), 16, 16)
    return ((_half(block, 208) * scale)[..., None] * centred).reshape(len(block), -1)


_PLAIN = MappingProxyType(
    {
        TensorType.F32: torch.float32,
        TensorType.F16: torch.float16,
        TensorType.BF16: torch.bfloat16,
    }
)
_UNPACK: MappingProxyType[TensorType, Callable[[torch.Tensor], torch.Tensor]] = MappingProxyType(
    {
        TensorType.Q4_0: _q4_0,
        TensorType.Q4_1: _q4_1,
        TensorType.Q5_0: _q5_0,
        TensorType.Q5_1: _q5_1,
        TensorType.Q8_0: _q8_0,
        TensorType.Q4_K: _q4_k,
        TensorType.Q5_K: _q5_k,
        TensorType.Q6_K: _q6_k,
    }
)
