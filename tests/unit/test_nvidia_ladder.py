"""Which SM partitions a GPU gets, and whose streams are whose."""

import pytest

from festina.device.nvidia.ladder import SmLadder, ladder_sms
from festina.errors import DeviceError
from festina.types import SmPartition


class Contexts:
    """Green contexts as the driver made them; a stream's address tells its place."""

    def __init__(self, rungs):
        self.rungs = rungs
        self.current = 0

    def streams(self, rung, side):
        return [1000 * rung + 100 * side]

    def switch_to(self, rung):
        self.current = rung


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ((132, 8, 8, 4), [16, 32, 48, 64]),  # H100
        ((132, 8, 8, 8), [8, 16, 24, 32, 40, 48, 56, 64]),
        ((132, 2, 2, 4), [16, 32, 50, 66]),  # co-scheduling ignored
        ((108, 4, 2, 4), [14, 26, 40, 54]),  # A100
        ((16, 8, 8, 4), [8]),
        ((14, 8, 8, 4), []),
        ((20, 8, 0, 4), [8]),
    ],
)
def test_first_halves_are_spread_up_to_half_of_the_device(device, expected):
    assert ladder_sms(*device) == expected


def test_no_first_half_is_more_than_asked_or_leaves_no_second_one():
    for total in range(2, 200):
        for smallest, step in ((2, 2), (4, 2), (8, 8), (16, 0)):
            sizes = ladder_sms(total, smallest, step, 4)
            assert len(sizes) <= 4
            assert all(smallest <= size <= total // 2 for size in sizes)


def test_the_whole_device_comes_first_then_both_halves_of_each_rung():
    ladder = SmLadder(Contexts([[132], [16, 116], [64, 68]]))
    assert ladder.partitions == (
        SmPartition(0, 132, 0),
        SmPartition(1, 16, 0),
        SmPartition(1, 116, 1),
        SmPartition(2, 64, 0),
        SmPartition(2, 68, 1),
    )


def test_each_partition_has_the_streams_of_its_half():
    ladder = SmLadder(Contexts([[108], [54, 54]]))
    assert [ladder.streams(one) for one in ladder.partitions] == [(0,), (1000,), (1100,)]


def test_a_switch_is_the_drivers_and_only_to_a_rung_that_is_there():
    ladder = SmLadder(Contexts([[132], [16, 116]]))
    ladder.switch_to(1)
    assert ladder.current == 1
    with pytest.raises(DeviceError, match="no such partition"):
        ladder.switch_to(2)
    assert ladder.current == 1


def test_a_partition_of_another_ladder_is_refused_with_those_there_are():
    with pytest.raises(DeviceError, match=r"no such partition.*sms=116"):
        SmLadder(Contexts([[132], [16, 116]])).streams(SmPartition(1, 32, 0))


def test_halves_that_must_share_sms_are_refused():
    with pytest.raises(DeviceError, match=r"rung 1 has \[80, 80\] of 132"):
        SmLadder(Contexts([[132], [80, 80]]))
