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


@pytest.mark.parametrize("frame", [b"", b"\x01", b"\x01\xc1", b"\x01\x91\xa4Nope"])
def test_a_malformed_frame_is_a_typed_error(frame: bytes):
    with pytest.raises(ProtocolError):
        messages.decode(frame)


def test_an_oversized_frame_is_refused_both_ways():
    with pytest.raises(FrameTooLargeError):
        messages.decode(bytes(messages.FRAME_BYTES_MAX + 1))
    with pytest.raises(FrameTooLargeError):
        messages.encode(messages.Load("m" * (messages.FRAME_BYTES_MAX + 1)))
