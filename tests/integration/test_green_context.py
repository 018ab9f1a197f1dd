"""Ladders of SM partitions on a pretended driver: sizes, halves, fences, and what fails."""

from pathlib import Path

import pytest
from fake_cuda import FakeCuda

from festina import _core


@pytest.fixture
def fake(tmp_path: Path):
    return lambda *defines: FakeCuda(tmp_path, *defines)


def test_a_ladder_is_the_whole_device_and_pairs_as_the_driver_rounds_them(fake):
    ladder = _core.GreenContexts(fake().driver, 0, [16, 60, 120])
    assert ladder.sms_total == 132
    assert ladder.granularity == (8, 8)
    assert ladder.rungs == [[132], [16, 116], [64, 68], [120, 12]]
    assert ladder.current == 0


def test_finer_steps_are_asked_of_the_driver_too(fake):
    ladder = _core.GreenContexts(fake().driver, 0, [11], fine=True)
    assert ladder.granularity == (2, 2)
    assert ladder.rungs == [[132], [12, 120]]


def test_the_halves_of_a_rung_share_no_sm_and_leave_none_out(fake):
    pretended = fake()
    ladder = _core.GreenContexts(pretended.driver, 0, [24, 96])
    for rung in (1, 2):
        first, second = (set(pretended.sms(ladder.streams(rung, side)[0])) for side in (0, 1))
        assert not first & second
        assert first | second == set(range(132))


def test_each_half_has_as_many_streams_as_asked_for(fake):
    pretended = fake()
    ladder = _core.GreenContexts(pretended.driver, 0, [16], streams=3)
    streams = ladder.streams(1, 0)
    assert len(set(streams)) == 3
    assert {pretended.sms(stream) for stream in streams} == {range(16)}


@pytest.mark.parametrize("ordinal", [0, 1])
def test_a_switch_makes_every_new_half_wait_for_every_old_one_and_nothing_else(fake, ordinal):
    pretended = fake()
    ladder = _core.GreenContexts(pretended.driver, ordinal, [16, 64], streams=2)
    old, new = (
        {pretended.context(stream) for side in (0, 1) for stream in ladder.streams(rung, side)}
        for rung in (1, 2)
    )
    ladder.switch_to(1)
    before, live = len(pretended.calls()), pretended.live
    ladder.switch_to(2)
    calls = pretended.calls()[before:]
    events = {event: context for call, event, context in calls if call == "record"}
    waits = {(events[event], context) for call, event, context in calls if call == "wait"}
    assert sorted(events.values()) == sorted(old)
    assert waits == {(one, other) for one in old for other in new}
    assert len(calls) == 6
    assert (ladder.current, pretended.live) == (2, live)


@pytest.mark.parametrize("call", ["cuGreenCtxRecordEvent", "cuGreenCtxWaitEvent"])
def test_a_switch_that_fails_says_which_call_and_leaves_the_ladder_where_it_is(fake, call):
    pretended = fake()
    ladder = _core.GreenContexts(pretended.driver, 0, [16])
    pretended.fail(call, 700)
    with pytest.raises(_core.CudaDriverError, match=f"{call} failed with 700") as caught:
        ladder.switch_to(1)
    assert (caught.value.fault, ladder.current) == ("device_lost", 0)


def test_a_switch_while_a_stream_is_captured_is_refused(fake):
    pretended = fake()
    ladder = _core.GreenContexts(pretended.driver, 0, [16])
    pretended.capture(1)
    with pytest.raises(_core.CudaDriverError, match="cuGreenCtxRecordEvent") as caught:
        ladder.switch_to(1)
    assert (caught.value.fault, ladder.current) == ("capturing", 0)
    pretended.capture(0)
    ladder.switch_to(1)
    assert ladder.current == 1


def test_a_switch_to_the_present_rung_costs_no_call(fake):
    pretended = fake()
    ladder = _core.GreenContexts(pretended.driver, 0, [16])
    ladder.switch_to(0)
    assert pretended.calls() == []


def test_a_rung_or_half_that_is_not_there_is_an_index_error_and_changes_nothing(fake):
    ladder = _core.GreenContexts(fake().driver, 0, [16])
    with pytest.raises(IndexError):
        ladder.switch_to(2)
    with pytest.raises(IndexError):
        ladder.streams(0, 1)
    assert ladder.current == 0


def test_all_is_given_back_when_a_ladder_ends(fake):
    pretended = fake()
    ladder = _core.GreenContexts(pretended.driver, 0, [16, 64], streams=2)
    # The primary context, 5 partitions, and an event and 2 streams in each of them.
    assert pretended.live == 1 + 5 + 5 * (1 + 2)
    del ladder
    assert pretended.live == 0


@pytest.mark.parametrize(
    ("defines", "sms", "words"),
    [
        (['FAKE_MISSING="cuGreenCtxCreate"'], [16], "no cuGreenCtxCreate of CUDA 12040"),
        (['FAKE_MISSING="cuGreenCtxRecordEvent"'], [16], "no cuGreenCtxRecordEvent of CUDA 12040"),
        (['FAKE_MISSING="cuGreenCtxWaitEvent"'], [16], "no cuGreenCtxWaitEvent of CUDA 12040"),
        (["FAKE_VERSION=12040"], [16], "no cuGreenCtxStreamCreate of CUDA 12050"),
        ([], [133], "no partition of 133 SMs on a device with 132"),
        (["FAKE_SMS=64"], [64], "64 SMs round up to 64 of 64: no SM is left"),
        (["FAKE_SMS=4"], [2], "no partition of 1 SMs on a device with 4"),
        (["FAKE_CREATE_STATUS_AFTER=2"], [16], r"cuGreenCtxCreate failed with 2 .*OUT_OF_MEMORY"),
    ],
)
def test_a_ladder_that_cannot_be_made_says_why_and_leaves_nothing(fake, defines, sms, words):
    pretended = fake(*defines)
    with pytest.raises(_core.CudaDriverError, match=words):
        _core.GreenContexts(pretended.driver, 0, sms)
    assert pretended.live == 0


def test_a_device_that_is_not_there_has_no_ladder(fake):
    with pytest.raises(_core.CudaDriverError, match="INVALID_DEVICE"):
        _core.GreenContexts(fake().driver, 5, [16])


def test_halves_without_streams_are_refused(fake):
    pretended = fake()
    with pytest.raises(ValueError, match="streams: expected at least 1"):
        _core.GreenContexts(pretended.driver, 0, [16], streams=0)
    assert pretended.live == 0
