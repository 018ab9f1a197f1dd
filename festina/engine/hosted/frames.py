"""What agent and engine process say to each other: one request, one reply, in turn.

A frame is a version byte, its length and a msgpack array whose first item is the tag. Nothing in a
frame can name code. Both ends are of the same version of festina; the byte guards against others.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

from festina.config import DeploymentConfig
from festina.engine.architecture import DecoderConfig
from festina.engine.base import ModelShape
from festina.errors import ErrorInfo, FrameTooLargeError, ProtocolError, ProtocolVersionError
from festina.types import Count, Logprobs, OperatingPoint, Sampling, SmPartition

VERSION = 1
FRAME_BYTES_MAX = 32 * 1024 * 1024
"""Block tables of hundreds of sequences of 10^5 tokens stay below a tenth of this."""

HEADER = struct.Struct("<BI")
"""Version, bytes of the body."""

Ints = bytes
"""Native int32, one after the other."""


class Frame(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of all frames; the tag is the class name."""


# Agent → engine process


class TensorPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where a tensor lies in the image of its file.

    Attributes:
        name: As in the file.
        type: GGUF's number of its type.
        rows: Rows.
        columns: Values in a row.
        offset: Where it begins, in bytes.
    """

    name: str
    type: Count
    rows: Count
    columns: Count
    offset: Count


class WeightsImage(msgspec.Struct, frozen=True, array_like=True):
    """A file of weights as far as computing needs to know it; its descriptor comes along.

    Attributes:
        size_bytes: Of the whole image.
        config: Decoder in it.
        tensors: All of its tensors, in the order of the file.
        hot: It is in memory already.
    """

    size_bytes: Count
    config: DecoderConfig
    tensors: tuple[TensorPlace, ...]
    hot: bool


class Open(Frame, frozen=True):
    """What to be, said once; the descriptor of the shared memory comes along.

    Attributes:
        engine: Which engine.
        models_dir: Cache folder of known models; "" takes the user's.
        isa: Instruction set of a CPU engine's kernels; "" takes the best.
        ordinal: Of the GPU, as CUDA counts those that the process sees.
        graphs_max: CUDA graphs that a model may have.
        graphs_ahead: They are captured when it is loaded.
        batch_max: Sequences of the largest step; 0 for a CPU.
        log_format: Of the agent's log, which this process' last words join.
    """

    engine: Literal["cpu", "cuda"]
    models_dir: str = ""
    isa: str = ""
    ordinal: Count = 0
    graphs_max: Count = 0
    graphs_ahead: bool = True
    batch_max: Count = 0
    log_format: Literal["off", "text", "json"] = "off"


class Load(Frame, frozen=True):
    """Make a deployment resident; without an image the process reads its file by itself."""

    deployment: DeploymentConfig
    image: WeightsImage | None


class Unload(Frame, frozen=True):
    """Give a deployment's memory back."""

    model: str


class WireChunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A `Chunk`, its arrays as bytes."""

    token_ids: Ints
    start: int
    blocks: Ints
    sampling: Sampling | None
    output_index: int


class Step(Frame, frozen=True):
    """Compute a `Batch`."""

    model: str
    chunks: tuple[WireChunk, ...]
    point: OperatingPoint
    partition: SmPartition


class Export(Frame, frozen=True):
    """Put the contents of KV blocks into the shared memory."""

    model: str
    blocks: Ints


class Import(Frame, frozen=True):
    """Take the contents of KV blocks from the shared memory.

    Attributes:
        model: Deployment name.
        blocks: Which.
        rows: Of the data, uint8 (rows, row_bytes).
        row_bytes: See `rows`.
    """

    model: str
    blocks: Ints
    rows: Count
    row_bytes: Count


class Check(Frame, frozen=True):
    """Are you there?"""


Request = Open | Load | Unload | Step | Export | Import | Check


# Engine process → agent


class Ready(Frame, frozen=True):
    """Answer to `Open`: the engine is there and holds its device's context.

    Attributes:
        partitions: The device's SM ladder; empty for a CPU.
    """

    partitions: tuple[SmPartition, ...] = ()


class Loaded(Frame, frozen=True):
    """Answer to `Load`."""

    shape: ModelShape
    kv_blocks: Count


class Stepped(Frame, frozen=True):
    """Answer to `Step`: a `StepResult`."""

    token_ids: tuple[int | None, ...]
    latency_ms: float
    flops: float
    bytes_moved: float
    logprobs: tuple[Logprobs | None, ...] = ()


class Exported(Frame, frozen=True):
    """Answer to `Export`: uint8 (rows, row_bytes) lies in the shared memory."""

    rows: Count
    row_bytes: Count


class Done(Frame, frozen=True):
    """Answer to everything else."""


class Raised(Frame, frozen=True):
    """Answer to anything that failed."""

    error: ErrorInfo


Reply = Ready | Loaded | Stepped | Exported | Done | Raised

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(frame: Request | Reply) -> bytes:
    """`frame` with its header.

    Raises:
        FrameTooLargeError: It would exceed `FRAME_BYTES_MAX`.
    """
    body = _encoder.encode(frame)
    check_size(len(body))
    return HEADER.pack(VERSION, len(body)) + body


def body_bytes(header: bytes | bytearray) -> int:
    """Length of the body that this header announces.

    Raises:
        ProtocolVersionError: Another version.
        FrameTooLargeError: More than `FRAME_BYTES_MAX`.
    """
    version, size = HEADER.unpack_from(header)
    if version != VERSION:
        raise ProtocolVersionError(
            f"a frame of version {version}", field="version", expected=str(VERSION)
        )
    check_size(size)
    return int(size)


def decode_request(body: bytes | bytearray) -> Request:
    """The request in a body.

    Raises:
        ProtocolError: It is none.
    """
    try:
        return _requests.decode(body)
    except _UNREADABLE as error:
        raise _unreadable(error) from error


def decode_reply(body: bytes | bytearray) -> Reply:
    """The reply in a body.

    Raises:
        ProtocolError: It is none.
    """
    try:
        return _replies.decode(body)
    except _UNREADABLE as error:
        raise _unreadable(error) from error


def check_size(size: int) -> None:
    """Whether a body may be so long.

    Raises:
        FrameTooLargeError: It may not.
    """
    if size > FRAME_BYTES_MAX:
        raise FrameTooLargeError(
            f"a frame of {size} bytes", field="frame", expected=f"at most {FRAME_BYTES_MAX}"
        )


def _unreadable(error: Exception) -> ProtocolError:
    return ProtocolError(f"not a frame of the engine: {error}", field="frame")
