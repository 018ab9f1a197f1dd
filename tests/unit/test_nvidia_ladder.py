"""Which SM partitions a GPU gets, and whose streams are whose."""

import pytest

from festina.device import physics
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
        ((132, 8, 8), [16, 32, 48, 64, 80, 96, 112]),  # H100
        ((132, 8, 8, 32), [32, 64, 96]),
        ((108, 4, 2), [16, 32, 48, 64, 80, 96]),  # A100
        ((60, 6, 6), [18, 36, 48]),
        ((16, 8, 8), [8]),
        ((14, 8, 8), []),
        ((20, 8, 0), [8]),
    ],
)
def test_first_halves_are_as_far_apart_as_asked_and_leave_a_second_half(device, expected):
    assert ladder_sms(*device) == expected


def test_every_size_is_one_that_the_driver_has():
    for total in range(2, 200):
        for smallest, step in ((2, 2), (4, 2), (8, 8), (16, 0)):
            for size in ladder_sms(total, smallest, step):
                assert smallest <= size <= total - smallest
                assert size == smallest or (size - smallest) % step == 0


@pytest.mark.parametrize("kind", ["h100", "h200", "a100"])
def test_the_sizes_are_the_sm_axis_of_modelled_profiles(kind):
    gpu = physics.gpu_named(kind)
    granularity = (8, 8) if gpu.sms_total == 132 else (4, 2)
    assert (*ladder_sms(gpu.sms_total, *granularity), gpu.sms_total) == gpu.sms_ladder


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
