"""Ladders on a real GPU: work runs on the SMs of its stream, before and after switches."""

import pytest

from festina import _core


@pytest.fixture(scope="module")
def ladder():
    if not hasattr(_core, "sm_ids"):
        pytest.skip("built without CUDA")
    try:
        driver = _core.CudaDriver()
        if driver.device_count() == 0:
            pytest.skip("no NVIDIA GPU")
    except _core.CudaDriverError as error:
        pytest.skip(str(error))
    total = driver.sm_count(0)
    return _core.GreenContexts(driver, 0, [total // 4, total // 2])


def sms(ladder, rung, side):
    """SMs on which a flood of blocks ran."""
    stream = ladder.streams(rung, side)[0]
    return set(_core.sm_ids(0, stream, 64 * ladder.sms_total))


def test_the_whole_device_is_rung_0(ladder):
    assert ladder.rungs[0] == [ladder.sms_total]
    assert len(sms(ladder, 0, 0)) == ladder.sms_total


@pytest.mark.parametrize("rung", [1, 2])
def test_blocks_run_on_as_many_sms_as_read_back_and_halves_share_none(ladder, rung):
    first, second = sms(ladder, rung, 0), sms(ladder, rung, 1)
    assert [len(first), len(second)] == ladder.rungs[rung]
    assert not first & second


def test_switching_and_back_leaves_every_partition_usable(ladder):
    for rung in (1, 2, 0, 2, 1, 0):
        ladder.switch_to(rung)
        for side, count in enumerate(ladder.rungs[rung]):
            assert len(sms(ladder, rung, side)) == count
