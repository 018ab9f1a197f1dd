"""Frames: round trip, version, bounds."""

import pytest

from festina import messages
from festina.errors import FrameTooLargeError, ProtocolError, ProtocolVersionError
from festina.types import Slo


def test_a_submit_comes_back_equal():
    submit = messages.Submit("r1", "chat", 12, 100, Slo(250.0, 100.0), ("gpu0",))
    assert messages.decode(messages.encode(submit)) == submit


def test_another_version_is_named():
    frame = b"\x63" + messages.encode(messages.GetCluster())[1:]
    with pytest.raises(ProtocolVersionError, match="99"):
        messages.decode(frame)


@pytest.mark.parametrize(
    "frame", [b"", b"\x01", b"\x01\xc1", b"\x01\x91\xa4Nope", b"\x01\x91\xa4Lo\x80d"]
)
def test_a_malformed_frame_is_a_typed_error(frame: bytes):
    with pytest.raises(ProtocolError):
        messages.decode(frame)


def test_an_oversized_frame_is_refused_both_ways():
    with pytest.raises(FrameTooLargeError):
        messages.decode(bytes(messages.FRAME_BYTES_MAX + 1))
    with pytest.raises(FrameTooLargeError):
        messages.encode(messages.Load("m" * (messages.FRAME_BYTES_MAX + 1)))


def test_a_wrong_field_is_named():
    frame = messages.encode(messages.Submit("r1", "", 12, 100))
    with pytest.raises(ProtocolError) as caught:
        messages.decode(frame)
    assert caught.value.field == "model"


def test_a_frame_nested_too_deep_is_a_typed_error():
    depth = 100_000
    surplus = b"\x92\xaaGetCluster" + b"\x91" * depth + b"\x90"
    with pytest.raises(ProtocolError):
        messages.decode(b"\x01" + surplus)


def test_a_field_appended_by_a_later_version_is_skipped():
    frame = b"\x01\x92\xaaGetCluster\xa5later"
    assert messages.decode(frame) == messages.GetCluster()


def test_a_message_without_tokens_is_refused():
    with pytest.raises(ProtocolError) as caught:
        messages.decode(messages.encode(messages.Tokens("r1", 0, (), "text")))
    assert caught.value.field == "token_ids"
