"""Frames between agent and engine process: bounded, versioned, typed errors."""

import os
import socket

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from festina.engine.hosted import frames
from festina.engine.hosted.channel import Channel, close_all
from festina.errors import FrameTooLargeError, ProtocolError, ProtocolVersionError
from festina.types import OperatingPoint, Sampling, SmPartition

STEP = frames.Step(
    "chat",
    (frames.WireChunk(b"\x01\0\0\0", 3, b"\x02\0\0\0", Sampling(temperature=0.5), 7),),
    OperatingPoint(0, 1),
    SmPartition(0, 1),
)


@pytest.fixture
def pair():
    ends = socket.socketpair()
    channels = [Channel(end) for end in ends]
    yield channels
    for channel in channels:
        channel.close()


@pytest.mark.parametrize("frame", [STEP, frames.Check(), frames.Export("chat", b"")])
def test_requests_arrive_as_they_were_sent(pair, frame):
    pair[0].send(frame)
    body, fds = pair[1].receive(1.0)
    assert frames.decode_request(body) == frame
    assert fds == []


def test_a_long_frame_arrives_whole(pair):
    frame = frames.Export("chat", bytes(150_000))  # longer than what the socket holds at once
    pair[0].send(frame)
    body, _ = pair[1].receive(1.0)
    assert frames.decode_request(body) == frame


def test_descriptors_come_along(pair, tmp_path):
    file = tmp_path / "file"
    file.write_text("content")
    fd = os.open(file, os.O_RDONLY)
    pair[0].send(frames.Check(), (fd,))
    os.close(fd)
    _, fds = pair[1].receive(1.0)
    assert os.read(fds[0], 100) == b"content"
    close_all(fds)


def test_a_frame_that_does_not_come_is_a_timeout(pair):
    with pytest.raises(TimeoutError):
        pair[0].receive(0.01)


def test_a_closed_stream_is_told(pair):
    pair[1].close()
    with pytest.raises(ConnectionError):
        pair[0].receive(1.0)


def test_another_version_is_refused():
    with pytest.raises(ProtocolVersionError) as caught:
        frames.body_bytes(frames.HEADER.pack(frames.VERSION + 1, 3))
    assert caught.value.field == "version"


def test_a_frame_has_a_bound():
    with pytest.raises(FrameTooLargeError):
        frames.body_bytes(frames.HEADER.pack(frames.VERSION, frames.FRAME_BYTES_MAX + 1))
    with pytest.raises(FrameTooLargeError):
        frames.encode(frames.Export("chat", bytes(frames.FRAME_BYTES_MAX)))


def test_a_reply_is_no_request():
    body = frames.encode(frames.Done())[frames.HEADER.size :]
    with pytest.raises(ProtocolError):
        frames.decode_request(body)


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_frame_or_a_protocol_error(body):
    for decode in (frames.decode_request, frames.decode_reply):
        try:
            found = decode(body)
        except ProtocolError:
            continue
        assert isinstance(found, msgspec.Struct)
