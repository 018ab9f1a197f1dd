"""What a step hands to the decoder: one row of integers on the host, one copy to the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from festina.engine.base import BLOCK_TOKENS, Chunk

Array = TypeVar("Array", NDArray[np.int32], torch.Tensor)


@dataclass(frozen=True, slots=True)
class Fields(Generic[Array]):
    """The parts of a packed batch, int32.

    Attributes:
        token_ids: (t,).
        positions: (t,): place in the sequence.
        slots: (t,): block · BLOCK_TOKENS + place in the block, where keys and values go.
        lengths: (s,): tokens cached after this step; 0 for padding.
        tables: (s, width): block tables, padded with block 0.
    """

    token_ids: Array
    positions: Array
    slots: Array
    lengths: Array
    tables: Array


@dataclass(frozen=True, slots=True)
class Layout:
    """How the fields of a batch lie in one row of integers.

    Attributes:
        tokens: Tokens, padding included.
        sequences: Sequences, padding included.
        width: Entries of a block table.
    """

    tokens: int
    sequences: int
    width: int

    @property
    def size(self) -> int:
        """Integers in all."""
        return 3 * self.tokens + self.sequences * (1 + self.width)

    def fields(self, flat: Array) -> Fields[Array]:
        """Views of the parts of `flat` (size,)."""
        tokens, sequences = self.tokens, self.sequences
        begin = 3 * tokens + sequences
        return Fields(
            token_ids=flat[:tokens],
            positions=flat[tokens : 2 * tokens],
            slots=flat[2 * tokens : 3 * tokens],
            lengths=flat[3 * tokens : begin],
            tables=flat[begin:].reshape(sequences, self.width),
        )


@dataclass(frozen=True, slots=True)
class Span:
    """A chunk of several tokens in a batch.

    Attributes:
        row: Its first token's row in the batch.
        tokens: How many.
        start: Tokens of its sequence that were cached before.
        sequence: Its row in lengths and tables.
    """

    row: int
    tokens: int
    start: int
    sequence: int


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """A step on the device: chunks of one token first, then the others.

    Attributes:
        fields: On the device.
        singles: How many of the first rows are chunks of one token: row i is sequence i.
        spans: The others, in order.
        logit_rows: Rows whose logits are wanted, int64 (r,); None for all.
        sms: SMs that it runs on.
    """

    fields: Fields[torch.Tensor]
    singles: int
    spans: tuple[Span, ...] = ()
    logit_rows: torch.Tensor | None = None
    sms: int = 1


def in_order(chunks: Sequence[Chunk]) -> list[int]:
    """Indices of chunks as a batch has them: those of one token first, else as they came."""
    return sorted(range(len(chunks)), key=lambda index: len(chunks[index].token_ids) > 1)


def pack(chunks: Sequence[Chunk], layout: Layout, spare: int) -> NDArray[np.int32]:
    """The integers of a step, (layout.size,), padded: padding writes to the block `spare`."""
    flat = np.zeros(layout.size, np.int32)
    fields: Fields[NDArray[np.int32]] = layout.fields(flat)
    fields.slots[:] = spare * BLOCK_TOKENS
    row = 0
    for sequence, chunk in enumerate(chunks):
        end = chunk.start + len(chunk.token_ids)
        rows = slice(row, row + len(chunk.token_ids))
        positions = np.arange(chunk.start, end, dtype=np.int32)
        blocks = chunk.blocks[: -(-end // BLOCK_TOKENS)]
        fields.token_ids[rows] = chunk.token_ids
        fields.positions[rows] = positions
        fields.slots[rows] = blocks[positions // BLOCK_TOKENS] * BLOCK_TOKENS
        fields.slots[rows] += positions % BLOCK_TOKENS
        fields.lengths[sequence] = end
        fields.tables[sequence, : len(blocks)] = blocks
        row = rows.stop
    return flat


def mixed_batch(chunks: Sequence[Chunk], spare: int, device: torch.device, sms: int) -> DeviceBatch:
    """A batch of exactly these chunks, which are `in_order`."""
    sizes = np.array([len(chunk.token_ids) for chunk in chunks])
    ends = np.cumsum(sizes)
    cached = [chunk.start + len(chunk.token_ids) for chunk in chunks]
    layout = Layout(int(ends[-1]), len(chunks), -(-max(cached) // BLOCK_TOKENS))
    flat = torch.from_numpy(pack(chunks, layout, spare)).to(device)
    wanted = np.array([chunk.sampling is not None for chunk in chunks])
    singles = int((sizes == 1).sum())
    return DeviceBatch(
        fields=layout.fields(flat),
        singles=singles,
        spans=tuple(
            Span(int(ends[index] - sizes[index]), int(sizes[index]), chunks[index].start, index)
            for index in range(singles, len(chunks))
        ),
        logit_rows=torch.from_numpy((ends - 1)[wanted]).to(device),
        sms=sms,
    )
