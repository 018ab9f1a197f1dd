"""Batched KV copy between host pools, against numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from festina import _core

BLOCK_BYTES = 48
BLOCKS = 16


@given(
    moves=st.lists(
        st.tuples(st.integers(0, BLOCKS - 1), st.integers(0, BLOCKS - 1)),
        max_size=BLOCKS,
        unique_by=lambda move: move[1],
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_blocks_arrive_where_the_table_says(moves: list[tuple[int, int]], seed: int):
    rng = np.random.default_rng(seed)
    src = rng.integers(0, 256, BLOCKS * BLOCK_BYTES, dtype=np.uint8)
    dst = rng.integers(0, 256, BLOCKS * BLOCK_BYTES, dtype=np.uint8)
    expected = dst.reshape(BLOCKS, BLOCK_BYTES).copy()
    for source, target in moves:
        expected[target] = src.reshape(BLOCKS, BLOCK_BYTES)[source]
    runs = np.array(
        [(s * BLOCK_BYTES, t * BLOCK_BYTES, BLOCK_BYTES) for s, t in moves], dtype=np.uint64
    ).reshape(-1, 3)
    _core.kv_copy_host(src, dst, runs)
    assert np.array_equal(dst.reshape(BLOCKS, BLOCK_BYTES), expected)


@pytest.mark.parametrize(
    "run",
    [(0, 0, 0), (0, 0, 8), (8, 0, 16), (0, 64, 16), (2**64 - 16, 0, 32), (0, 0, 80)],
    ids=["empty", "half a word", "unaligned", "past the end", "wrapping", "too long"],
)
def test_a_bad_descriptor_is_named_and_nothing_is_copied(run: tuple[int, int, int]):
    src = np.ones(64, dtype=np.uint8)
    dst = np.zeros(64, dtype=np.uint8)
    with pytest.raises(IndexError, match="descriptor 1"):
        _core.kv_copy_host(src, dst, np.array([(0, 0, 16), run], dtype=np.uint64))
    assert not dst.any()
