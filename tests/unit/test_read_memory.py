"""The kernel that reads memory, as host code: it reads every word exactly once."""

import numpy as np
import pytest

from festina import _core


def folded(words, blocks, start=0):
    out = np.array([start], np.uint32)
    _core.read_memory(words.ctypes.data, words.nbytes, out.ctypes.data, blocks, None)
    return int(out[0])


def words_of(count):
    """uint32 (4 · count,), 16-byte aligned."""
    room = np.random.default_rng(count).integers(0, 2**32, 4 * count + 4, np.uint32)
    return room[-room.ctypes.data % 16 // 4 :][: 4 * count]


@pytest.mark.parametrize("blocks", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 255, 256, 1024, 1025, 5000])
def test_all_words_are_folded_however_many_threads_there_are(count, blocks):
    words = words_of(count)
    assert folded(words, blocks) == np.bitwise_xor.reduce(words, initial=np.uint32(0))


def test_every_single_bit_matters():
    words = words_of(700)
    whole = folded(words, 1)
    for place in range(0, len(words), 97):
        words[place] ^= np.uint32(1 << place % 32)
        assert folded(words, 1) == whole ^ 1 << place % 32
        words[place] ^= np.uint32(1 << place % 32)


def test_it_adds_to_what_was_there_before():
    words = words_of(10)
    assert folded(words, 1, 12345) == folded(words, 1) ^ 12345


@pytest.mark.parametrize(("shift", "size", "blocks"), [(4, 16, 1), (0, 8, 1), (0, 16, 0)])
def test_sizes_that_no_kernel_has_are_refused(shift, size, blocks):
    words, out = words_of(4), np.zeros(1, np.uint32)
    with pytest.raises(ValueError, match="expected"):
        _core.read_memory(words.ctypes.data + shift, size, out.ctypes.data, blocks, None)
