"""Paged attention's kernel bodies, as host code, against plain float64 attention."""

from dataclasses import dataclass

import numpy as np
import pytest

from festina import _core

BLOCK = 16


@dataclass
class Case:
    """One layer's cache of several sequences on scattered blocks, and one query row each."""

    lengths: list[int]
    kv_heads: int = 2
    group: int = 3
    head_dim: int = 64
    bf16: bool = False
    layers: int = 3
    layer: int = 1

    def __post_init__(self):
        rng = np.random.default_rng(5)
        width = max(-(-length // BLOCK) for length in [*self.lengths, 1])
        blocks = sum(-(-length // BLOCK) for length in self.lengths) + 2
        shape = (blocks, self.layers, 2, self.kv_heads, self.head_dim * BLOCK)
        self.pool = self.stored(rng.standard_normal(shape))
        free = list(rng.permutation(blocks))
        self.tables = np.zeros((len(self.lengths), width), np.int32)
        for row, length in enumerate(self.lengths):
            for index in range(-(-length // BLOCK)):
                self.tables[row, index] = free.pop()
        heads = self.kv_heads * self.group
        # Rows of queries are apart, as in a row of queries, keys and values.
        self.q = self.stored(rng.standard_normal((len(self.lengths), heads + 4, self.head_dim)))

    def stored(self, values):
        values = values.astype(np.float32)
        return (values.view(np.uint32) >> 16).astype(np.uint16) if self.bf16 else values

    def numbers(self, stored):
        if not self.bf16:
            return stored.astype(np.float64)
        return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)

    def run(self, splits=1, window=0):
        shape = _core.PagedAttentionShape(
            sequences=len(self.lengths),
            kv_heads=self.kv_heads,
            group=self.group,
            head_dim=self.head_dim,
            table_width=self.tables.shape[1],
            window=window,
            splits=splits,
            scale=self.head_dim**-0.5,
            block_stride=self.pool[0].size,
            q_stride=self.q[0].size,
        )
        out = np.full(
            (len(self.lengths), self.kv_heads * self.group, self.head_dim), 7, self.q.dtype
        )
        lengths = np.array(self.lengths, np.int32)
        scratch = np.full(shape.scratch, np.nan, np.float32)
        layer = self.pool[:, self.layer]
        _core.paged_attention_host(
            shape,
            _core.PagedAttentionArrays(
                q=self.q.ctypes.data,
                keys=layer[:, 0].ctypes.data,
                values=layer[:, 1].ctypes.data,
                tables=self.tables.ctypes.data,
                lengths=lengths.ctypes.data,
                scratch=scratch.ctypes.data,
                out=out.ctypes.data,
            ),
            self.bf16,
        )
        return self.numbers(out)

    def expected(self, window=0):
        """Plain attention, sequence by sequence."""
        pool, q = self.numbers(self.pool)[:, self.layer], self.numbers(self.q)
        out = np.zeros((len(self.lengths), self.kv_heads * self.group, self.head_dim))
        for row, length in enumerate(self.lengths):
            if not length:
                continue
            table = self.tables[row, : -(-length // BLOCK)]
            keys = pool[table, 0].reshape(len(table), self.kv_heads, -1, BLOCK, 8)
            keys = keys.transpose(1, 0, 3, 2, 4).reshape(self.kv_heads, -1, self.head_dim)
            values = pool[table, 1].reshape(len(table), self.kv_heads, BLOCK, self.head_dim)
            values = values.swapaxes(0, 1).reshape(self.kv_heads, -1, self.head_dim)
            seen = slice(max(0, length - window) if window else 0, length)
            for head in range(self.kv_heads * self.group):
                kv = head // self.group
                scores = keys[kv, seen] @ q[row, head] * self.head_dim**-0.5
                weights = np.exp(scores - scores.max())
                out[row, head] = weights @ values[kv, seen] / weights.sum()
        return out


def check(case, tolerance=2e-6, **rules):
    out = case.run(**rules)
    expected = case.expected(rules.get("window", 0))
    assert np.abs(out - expected).max() <= tolerance * np.abs(expected).max()


LENGTHS = [1, 16, 17, 300, 1100]


@pytest.mark.parametrize("head_dim", [8, 64, 80, 96, 128, 192, 256])
def test_head_sizes(head_dim):
    check(Case(LENGTHS, head_dim=head_dim))


@pytest.mark.parametrize("group", [1, 2, 3, 4, 5, 8, 9, 20])
def test_query_heads_of_a_key_head(group):
    check(Case([5, 90], group=group, head_dim=16), splits=2)


@pytest.mark.parametrize("splits", [1, 2, 3, 7, 64])
def test_splits_of_the_context_are_joined(splits):
    check(Case(LENGTHS), splits=splits)


@pytest.mark.parametrize("window", [1, 15, 16, 17, 40, 1000, 5000])
@pytest.mark.parametrize("splits", [1, 3])
def test_a_window_hides_older_keys(window, splits):
    check(Case(LENGTHS, head_dim=32), splits=splits, window=window)


@pytest.mark.parametrize("splits", [1, 4])
def test_bf16_is_rounded_once_at_the_end(splits):
    check(Case(LENGTHS, bf16=True, head_dim=128), tolerance=2**-8, splits=splits)


@pytest.mark.parametrize("splits", [1, 2])
def test_padding_gives_zeros(splits):
    out = Case([0, 33, 0]).run(splits=splits)
    assert not out[0].any()
    assert not out[2].any()
    assert out[1].any()


@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_scores_of_any_size_are_weighed_stably(scale):
    case = Case([700])
    case.q *= np.float32(scale)
    check(case, tolerance=2e-5, splits=2)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"head_dim": 12}, "head_dim"),
        ({"head_dim": 264}, "head_dim"),
        ({"group": 0}, "heads"),
        ({"splits": 0}, "splits"),
        ({"q_stride": 63}, "strides"),
    ],
)
def test_sizes_that_no_kernel_has_are_refused(wrong, what):
    sizes = {
        "sequences": 1,
        "kv_heads": 1,
        "group": 1,
        "head_dim": 64,
        "table_width": 1,
        "window": 0,
        "splits": 1,
        "scale": 1.0,
        "block_stride": 4096,
        "q_stride": 64,
    }
    with pytest.raises(ValueError, match=what):
        _core.PagedAttentionShape(**sizes | wrong)
