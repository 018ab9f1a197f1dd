import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from festina.engine.blocks import BlockManager


@settings(deadline=None)
@given(
    total=st.integers(1, 40),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 45)), max_size=60),
)
def test_no_block_is_ever_free_and_taken_or_taken_twice(total, steps):
    manager = BlockManager(total)
    held: list[list[int]] = []
    for take, number in steps:
        if take:
            before = manager.free
            blocks = manager.allocate(number)
            if blocks is None:
                assert number > before == manager.free
            else:
                assert len(blocks) == number
                held.append(blocks)
        elif held:
            manager.release(held.pop(number % len(held)))
        taken = [block for blocks in held for block in blocks]
        assert len(taken) == len(set(taken))
        assert all(0 <= block < total for block in taken)
        assert manager.free + len(taken) == manager.total == total


def test_blocks_given_back_last_are_handed_out_first():
    manager = BlockManager(8)
    first = manager.allocate(3)
    manager.allocate(2)
    manager.release(first)
    assert manager.allocate(3) == first


@pytest.mark.parametrize("wrong", [[0, 0], [5], [-1], [0, 99]])
def test_releasing_what_is_not_handed_out_changes_nothing(wrong):
    manager = BlockManager(8)
    assert manager.allocate(2) == [0, 1]
    with pytest.raises(ValueError, match="not handed out"):
        manager.release(wrong)
    assert manager.free == 6
    manager.release([0, 1])


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        BlockManager(0)
    with pytest.raises(ValueError, match="0 or more"):
        BlockManager(1).allocate(-1)
