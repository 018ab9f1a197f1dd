"""KV blocks arrive in order, whole and checked, a bounded number at a time."""

import zlib

import pytest

from festina.messages import KvBlocks
from festina.runtime.protocol.block_inbox import BlockInbox

BLOCK = bytes(range(10))


def piece(first: int, offset: int = 0, data: bytes = BLOCK, size: int = 10) -> KvBlocks:
    return KvBlocks("k", first, 1, size, offset, data, zlib.crc32(data))


def shared(first: int, count: int, memory: str = "/proc/1/fd/3") -> KvBlocks:
    return KvBlocks("k", first, count, 10, memory=memory)


def test_pieces_become_blocks_and_blocks_one_import():
    inbox = BlockInbox(window=4)
    assert inbox.take(piece(0, 0, BLOCK[:6]))
    assert inbox.next() is None
    assert inbox.take(piece(0, 6, BLOCK[6:]))
    assert inbox.take(piece(1))
    arrived = inbox.next()
    assert (arrived.first, arrived.count, arrived.data) == (0, 2, BLOCK * 2)
    assert inbox.next() is None  # one at a time
    inbox.done()
    assert inbox.imported == 2


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(piece(1), id="too early"),
        pytest.param(piece(0, 6, BLOCK[6:]), id="a piece is missing"),
        pytest.param(piece(0, 0, BLOCK + b"x"), id="too long"),
        pytest.param(piece(0, 0, b""), id="empty"),
        pytest.param(KvBlocks("k", 0, 1, 10, 0, BLOCK, 7), id="damaged"),
    ],
)
def test_what_is_wrong_is_dropped_and_comes_again(wrong: KvBlocks):
    inbox = BlockInbox(window=4)
    assert not inbox.take(wrong)
    assert inbox.accepted == 0
    assert inbox.take(piece(0))
    assert inbox.accepted == 1
    assert not inbox.take(piece(0))  # twice changes nothing
    assert inbox.next().data == BLOCK


def test_a_block_that_begins_again_forgets_its_first_pieces():
    inbox = BlockInbox(window=4)
    assert inbox.take(piece(0, 0, b"lost!!"))
    assert inbox.take(piece(0))
    assert inbox.next().data == BLOCK


def test_blocks_of_another_size_are_dropped():
    inbox = BlockInbox(window=4)
    assert inbox.take(piece(0))
    assert not inbox.take(piece(1, 0, BLOCK[:5], size=5))


def test_no_more_than_the_window_is_held():
    inbox = BlockInbox(window=2)
    assert [inbox.take(piece(number)) for number in range(4)] == [True, True, False, False]
    inbox.next()
    assert not inbox.take(piece(2))
    inbox.done()
    assert inbox.take(piece(2))
    assert not BlockInbox(window=2).take(shared(0, 3))


def test_shared_memory_is_told_by_ranges_and_never_changes():
    inbox = BlockInbox(window=4)
    assert inbox.take(shared(0, 2))
    assert inbox.take(shared(0, 3))  # sent again, with one more
    assert inbox.accepted == 3
    assert not inbox.take(shared(0, 2))
    assert not inbox.take(shared(3, 1, "/proc/1/fd/4"))
    arrived = inbox.next()
    assert (arrived.first, arrived.count, arrived.memory) == (0, 3, "/proc/1/fd/3")
