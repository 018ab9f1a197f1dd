"""Batched KV copies between host pools: the native function, and engines' blocks by way of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from festina import _core
from festina.engine.kv_copy import (
    BlockPool,
    HostKvCopy,
    KvMemory,
    copy_blocks,
    export_blocks,
    import_blocks,
)
from festina.engine.kv_layout import KvLayout
from festina.errors import EngineError

BLOCK_BYTES = 48
BLOCKS = 16
PLANES = 3


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


def test_a_copy_past_the_caches_is_exact_from_and_to_any_address():
    rng = np.random.default_rng(5)
    size = 1 << 20
    backing = rng.integers(0, 256, 16 * size + 8, dtype=np.uint8)
    order = rng.permutation(16)
    runs = np.array([(o * size, i * size, size) for i, o in enumerate(order)], np.uint64)
    src = backing[8:]
    expected = src.reshape(16, size)[order].reshape(-1)
    for start in (0, 8):
        dst = np.zeros(16 * size + 8, np.uint8)[start : start + 16 * size]
        _core.kv_copy_host(src, dst, runs)
        assert np.array_equal(dst, expected)


def layout(kind: str, blocks: int) -> KvLayout:
    if kind == "gaps":
        return KvLayout(PLANES, blocks, BLOCK_BYTES, 32 + 64 * blocks, 64)
    return getattr(KvLayout, kind)(PLANES, blocks, BLOCK_BYTES)


def pool_of(kind: str, blocks: int, rng: np.random.Generator) -> BlockPool:
    shape = layout(kind, blocks)
    content = rng.integers(0, 256, shape.size_bytes, dtype=np.uint8)
    return BlockPool(KvMemory.of_array(content), shape)


def content(pool: BlockPool) -> np.ndarray:
    """(blocks, PLANES, BLOCK_BYTES), by plain arithmetic."""
    kept, data = pool.layout, pool.memory.array()
    starts = [
        [p * kept.plane_stride_bytes + b * kept.block_stride_bytes for p in range(kept.planes)]
        for b in range(kept.blocks)
    ]
    return np.array([[data[s : s + BLOCK_BYTES] for s in row] for row in starts])


KINDS = ("planar", "packed", "gaps")


@given(
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
    src_blocks=st.lists(st.integers(0, BLOCKS - 1), max_size=BLOCKS),
    dst_seed=st.integers(0, 2**32 - 1),
)
def test_blocks_go_between_pools_of_any_layout(kinds, src_blocks, dst_seed):
    rng = np.random.default_rng(dst_seed)
    src, dst = pool_of(kinds[0], BLOCKS, rng), pool_of(kinds[1], 2 * BLOCKS, rng)
    sources = np.array(src_blocks, np.int32)
    targets = rng.permutation(2 * BLOCKS)[: len(sources)].astype(np.int32)
    expected = content(dst)
    expected[targets] = content(src)[sources]
    copier = HostKvCopy()
    copy_blocks(copier, src, sources, dst, targets)
    assert copier.done()
    assert np.array_equal(content(dst), expected)


@given(kind=st.sampled_from(KINDS), blocks=st.lists(st.integers(0, BLOCKS - 1), unique=True))
def test_what_is_exported_can_be_imported_elsewhere(kind, blocks):
    rng = np.random.default_rng(len(blocks))
    src, dst = pool_of(kind, BLOCKS, rng), pool_of("planar", BLOCKS, rng)
    chosen = np.array(blocks, np.int32)
    data = export_blocks(HostKvCopy(), src, chosen)
    assert np.array_equal(data, content(src)[chosen].reshape(len(blocks), PLANES * BLOCK_BYTES))
    expected = content(dst)
    expected[chosen[::-1]] = content(src)[chosen]
    data.flags.writeable = False  # as what comes from a socket is
    import_blocks(HostKvCopy(), dst, chosen[::-1].copy(), data)
    assert np.array_equal(content(dst), expected)


@pytest.mark.parametrize(
    ("blocks", "change", "field"),
    [
        ([0, BLOCKS], lambda data: data, "blocks"),
        ([-1, 0], lambda data: data, "blocks"),
        ([1, 1], lambda data: data, "blocks"),
        ([0, 1], lambda data: data[:1], "data"),
        ([0, 1], lambda data: data[:, :-16], "data"),
        ([0, 1], lambda data: data.view(np.int8), "data"),
    ],
)
def test_a_wrong_import_is_named_and_writes_nothing(blocks, change, field):
    pool = pool_of("planar", BLOCKS, np.random.default_rng(1))
    before = pool.memory.array().copy()
    data = change(np.zeros((2, PLANES * BLOCK_BYTES), np.uint8))
    with pytest.raises(EngineError) as caught:
        import_blocks(HostKvCopy(), pool, np.array(blocks, np.int32), data)
    assert caught.value.field == field
    assert np.array_equal(pool.memory.array(), before)


def test_pools_with_blocks_of_another_kind_are_refused():
    rng = np.random.default_rng(1)
    src = pool_of("planar", BLOCKS, rng)
    other = KvLayout.planar(PLANES + 1, 4, BLOCK_BYTES)
    dst = BlockPool(KvMemory.of_array(np.zeros(other.size_bytes, np.uint8)), other)
    blocks = np.array([0], np.int32)
    with pytest.raises(EngineError, match=r"blocks of 3 × 48 bytes .*expected 4 × 48"):
        copy_blocks(HostKvCopy(), src, blocks, dst, blocks)


def test_lists_of_different_length_are_refused():
    pool = pool_of("planar", BLOCKS, np.random.default_rng(1))
    with pytest.raises(EngineError, match="2 blocks go to 1 different"):
        copy_blocks(HostKvCopy(), pool, np.array([0, 1]), pool, np.array([2]))


def test_layouts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="0 planes"):
        KvLayout.planar(0, 4, 16)
    for piece in (0, 8, 24):
        with pytest.raises(ValueError, match="piece_bytes"):
            KvLayout.planar(1, 4, piece)
    with pytest.raises(ValueError, match="at most 64"):
        BlockPool(KvMemory.of_array(np.zeros(64, np.uint8)), KvLayout.planar(1, 5, 16))


def test_memory_of_a_device_and_arrays_with_gaps_are_not_host_memory():
    with pytest.raises(EngineError, match="host memory"):
        KvMemory.of_device(4096, 64, 0, None).array()
    with pytest.raises(ValueError, match="contiguous"):
        KvMemory.of_array(np.zeros((4, 4), np.uint8)[:, :2])
