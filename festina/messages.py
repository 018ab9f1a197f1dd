"""Every wire message, one Struct each: tagged, versioned, bounded.

A frame is one version byte followed by a msgpack array whose first item is the tag. Nothing in a
frame can name code. Fields may be appended with defaults within a version; anything else raises
`PROTOCOL_VERSION`. Clocks are never compared between processes: times on the wire are durations.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from festina.account import Account
from festina.errors import (
    ErrorInfo,
    FrameTooLargeError,
    ProtocolError,
    ProtocolVersionError,
)
from festina.types import (
    LOGPROBS_MAX,
    Count,
    FinishReason,
    GpuSummary,
    Logprobs,
    Provenance,
    Sampling,
    Slo,
    Small,
    Usage,
)

PROTOCOL_VERSION = 1
FRAME_BYTES_MAX = 4 * 1024 * 1024
"""Largest frame; sockets set it as ZMQ_MAXMSGSIZE, so larger ones are dropped unread."""

RequestId = Annotated[str, Meta(min_length=1, max_length=64)]
ModelName = Annotated[str, Meta(min_length=1, max_length=128)]
AgentId = Annotated[str, Meta(min_length=1, max_length=64)]
Endpoint = Annotated[str, Meta(max_length=256)]
ServerKey = Annotated[str, Meta(max_length=40)]
SummaryMs = Annotated[float, Meta(ge=0)]
MOVE_TARGETS_MAX = 16
"""Agents that requests of one deployment are spread over, beside the first."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of all messages; the tag is the class name.

    Messages cannot be part of a reference cycle, so the garbage collector need not look at them.
    """


# Client → scheduler


class Submit(Message, frozen=True):
    """Ask where a request should run.

    Attributes:
        request_id: Chosen by the client, unique for its lifetime.
        model: Deployment name.
        input_tokens: Prompt length.
        max_tokens: Upper bound of the output.
        slo: Objectives; None takes the deployment's.
        exclude: Agents not to use (they failed this request before).
        estimated: `input_tokens` is a guess, as the client has no tokenizer: the agent will count.
    """

    request_id: RequestId
    model: ModelName
    input_tokens: Count
    max_tokens: Count
    slo: Slo | None = None
    exclude: Annotated[tuple[AgentId, ...], Meta(max_length=64)] = ()
    estimated: bool = False


class GetCluster(Message, frozen=True):
    """Ask for the state of the cluster (`festina top`, catalogue of deployments)."""


# Scheduler → client


class Placed(Message, frozen=True):
    """The request should run there.

    Attributes:
        request_id: As submitted.
        agent: Agent that expects it.
        epoch: Epoch of that agent; another epoch has forgotten the placement.
        endpoint: Where the agent listens to clients.
        ticket: Goes into `Generate`; tells the scheduler that the placement arrived.
        server_key: Public key that the agent must have; "" where sockets have no keys.
    """

    request_id: RequestId
    agent: AgentId
    epoch: Count
    endpoint: Endpoint
    ticket: Count
    server_key: ServerKey = ""


class Refused(Message, frozen=True):
    """The request was not placed; it has ended."""

    request_id: str
    error: ErrorInfo


class DeploymentInfo(msgspec.Struct, frozen=True, array_like=True):
    """One entry of the catalogue.

    Attributes:
        model: Deployment name.
        slo: Default objectives.
        context_tokens: Longest prompt plus output.
    """

    model: ModelName
    slo: Slo
    context_tokens: Count


class AgentInfo(msgspec.Struct, frozen=True, array_like=True):
    """One agent as the scheduler sees it.

    Attributes:
        agent: Agent name.
        epoch: Its epoch.
        device: Device kind, such as "cpu" or "H100-SXM5-80GB".
        silent_ms: Time since it was last heard.
        summary: Its last summary.
        endpoint: Where it listens.
        memory_bytes: Device memory for weights and KV cache.
        clock_least_mhz: Lowest clock that it can be set to; 0 where clocks cannot be set.
        clock_most_mhz: Highest one.
        account: What it told last of its past; None before it has.
    """

    agent: AgentId
    epoch: Count
    device: str
    silent_ms: float
    summary: GpuSummary
    endpoint: Endpoint = ""
    memory_bytes: Count = 0
    clock_least_mhz: Small = 0
    clock_most_mhz: Small = 0
    account: Account | None = None


class ConsolidationEvent(msgspec.Struct, frozen=True, array_like=True):
    """Something that the consolidator did or saw.

    Attributes:
        ago_s: How long ago.
        plan: Number of the plan it belongs to; 0 for none.
        kind: What: a plan begins ("empty", "wake"), is done ("parked", "woken"), is given up
            ("aborted"), or a parked GPU is awake again ("ended").
        agent: Whose GPU.
        why: In a line, for people.
        expected_j: Joules that the plan expects to save, or expected to save until now.
        saved_j: Joules that were saved: what the GPU drew less than before it was parked.
    """

    ago_s: float
    plan: Count
    kind: Literal["empty", "wake", "parked", "woken", "aborted", "ended"]
    agent: str
    why: str
    expected_j: float = 0.0
    saved_j: float = 0.0


class Consolidation(Message, frozen=True):
    """What the consolidator does and why; it tells the scheduler, which tells whoever looks.

    Attributes:
        epoch: Of the consolidator's process.
        policy: Which form.
        state: What it does now, in a line.
        plans: Plans begun.
        parks: GPUs parked.
        wakes: GPUs that were parked and are awake again, whoever woke them.
        early_wakes: Of these, those awake before they had been parked for the dwell.
        aborts: Plans given up.
        expected_j: Joules that the plans which parked GPUs expected to save until now.
        saved_j: Joules saved until now.
        events: The last ones, the oldest first.
    """

    epoch: Count
    policy: str
    state: str
    plans: Count = 0
    parks: Count = 0
    wakes: Count = 0
    early_wakes: Count = 0
    aborts: Count = 0
    expected_j: float = 0.0
    saved_j: float = 0.0
    events: Annotated[tuple[ConsolidationEvent, ...], Meta(max_length=64)] = ()


class Cluster(Message, frozen=True):
    """Answer to `GetCluster`; `serves` is false for the one of two schedulers that waits."""

    scheduler_epoch: Count
    deployments: tuple[DeploymentInfo, ...]
    agents: tuple[AgentInfo, ...]
    placed: Count
    refused: Count
    consolidation: Consolidation | None = None
    serves: bool = True


# Client → agent


class ChatTurn(msgspec.Struct, frozen=True, array_like=True):
    """One turn of a conversation, rendered with the model's own chat template."""

    role: Annotated[str, Meta(min_length=1, max_length=32)]
    content: str


class Generate(Message, frozen=True):
    """Run this request.

    Exactly one of `text`, `turns` and `token_ids` is not empty. A second one with the same ticket
    changes nothing and is answered with `Accepted` again while the agent has the request. One with
    a larger ticket is another try: it takes the place of the first.

    Attributes:
        request_id: As submitted.
        model: Deployment name.
        ticket: From `Placed`.
        epoch: From `Placed`; an agent of another epoch answers with a typed error.
        max_tokens: Upper bound of the output.
        elapsed_ms: Time since submission, on the client's clock.
        slo: Objectives; None takes the deployment's.
        sampling: How tokens are chosen.
        text: Raw prompt.
        turns: Chat prompt.
        token_ids: Prompt as token ids.
        pace: 0 as fast as possible … 1 use all the slack; None takes the deployment's.
        received: Output that the client has from another try; the agent goes on after it. Both
            `max_tokens` and the indices of `Tokens` count it.
    """

    request_id: RequestId
    model: ModelName
    ticket: Count
    epoch: Count
    max_tokens: Annotated[int, Meta(ge=1, le=2**20)]
    elapsed_ms: Annotated[float, Meta(ge=0)]
    slo: Slo | None = None
    sampling: Sampling = Sampling()
    text: str = ""
    turns: Annotated[tuple[ChatTurn, ...], Meta(max_length=1024)] = ()
    token_ids: Annotated[tuple[int, ...], Meta(max_length=2**20)] = ()
    pace: Annotated[float, Meta(ge=0, le=1)] | None = None
    received: Annotated[tuple[int, ...], Meta(max_length=2**20)] = ()


class Probe(Message, frozen=True):
    """Do you still have this request? Sent when nothing was heard about it for a while.

    Answered with `Accepted` if so, else with `Failed` and the code "agent_lost".
    """

    request_id: RequestId


class Cancel(Message, frozen=True):
    """Stop this request; its KV blocks are freed and nothing more is sent about it."""

    request_id: RequestId


# Agent → client


class Accepted(Message, frozen=True):
    """The request is queued; it will end with `Finished` or `Failed`, exactly once."""

    request_id: RequestId
    input_tokens: Count


class LikelyToken(msgspec.Struct, frozen=True, array_like=True):
    """A token that could stand at one place of an output.

    Attributes:
        token_id: Which.
        data: The bytes that it adds to the text.
        logprob: Natural logarithm of how likely it was.
    """

    token_id: Count
    data: Annotated[bytes, Meta(max_length=4096)]
    logprob: float


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """What a request that asked for it hears of a token: `festina.types.Logprobs`, spelt out.

    Attributes:
        chosen: The token.
        top: The likeliest, the likeliest first.
    """

    chosen: LikelyToken
    top: Annotated[tuple[LikelyToken, ...], Meta(max_length=LOGPROBS_MAX)] = ()


class Tokens(Message, frozen=True):
    """New output.

    Attributes:
        request_id: As submitted.
        index: Index of the first token of this message in the output.
        token_ids: The tokens, at least one.
        text: Text that they complete; may be empty inside a multi-token character.
        logprobs: How likely each was; empty unless `Sampling.logprobs` asked for it.
    """

    request_id: RequestId
    index: Count
    token_ids: Annotated[tuple[int, ...], Meta(min_length=1)]
    text: str
    logprobs: Annotated[tuple[TokenLogprobs, ...], Meta(max_length=4096)] = ()


class Finished(Message, frozen=True):
    """The request ended well. `usage.output_tokens` tokens were sent before.

    Attributes:
        request_id: As submitted.
        reason: Why it ended.
        usage: What it cost.
        text: Text that was held back until now (it could have begun a stop text).
    """

    request_id: RequestId
    reason: FinishReason
    usage: Usage
    text: str = ""


class Failed(Message, frozen=True):
    """The request ended with an error. `request_id` is "" when a frame could not be read."""

    request_id: str
    error: ErrorInfo


# Agent ↔ scheduler, and heartbeats on every link


class Register(Message, frozen=True):
    """An agent joins, or tells a new scheduler about itself.

    Attributes:
        agent: Agent name.
        epoch: New, and larger, for every process that bears this name.
        endpoint: Where it listens to clients.
        device: Device kind.
        sms_total: SMs of the device.
        clocks_mhz: Clocks it can be set to, ascending; empty where clocks cannot be set.
        memory_bytes: Device memory for weights and KV cache.
        models: Deployments it may host.
        public_key: Key of its sockets, which clients pin; "" where sockets have no keys.
    """

    agent: AgentId
    epoch: Count
    endpoint: Endpoint
    device: Annotated[str, Meta(max_length=64)]
    sms_total: Small
    clocks_mhz: Annotated[tuple[Small, ...], Meta(max_length=256)]
    memory_bytes: Count
    models: Annotated[tuple[ModelName, ...], Meta(max_length=4096)]
    public_key: ServerKey = ""


class Welcome(Message, frozen=True):
    """Answer to `Register`.

    Attributes:
        scheduler_epoch: Epoch of the scheduler's process.
        summary_ms: See `Pong`.
    """

    scheduler_epoch: Count
    summary_ms: SummaryMs = 0.0


class Summary(Message, frozen=True):
    """State of one device; also serves as the agent's heartbeat.

    Attributes:
        agent: Agent name.
        epoch: Its epoch.
        gpu: The device now.
        account: What has added up, about once a second.
    """

    agent: AgentId
    epoch: Count
    gpu: GpuSummary
    account: Account | None = None


class Leave(Message, frozen=True):
    """The agent ends on purpose; place nothing there."""

    agent: AgentId
    epoch: Count


class Load(Message, frozen=True):
    """Make a deployment resident."""

    model: ModelName


class Unload(Message, frozen=True):
    """Give a deployment's memory back once its requests have ended."""

    model: ModelName


class Drain(Message, frozen=True):
    """Take no new placements, so that the device empties.

    Attributes:
        lease_ms: How long this holds unless it is said again: a consolidator that dies drains
            nothing for good. 0 ends it.
    """

    lease_ms: Count


class MoveTarget(msgspec.Struct, frozen=True, array_like=True):
    """An agent that has a deployment and takes requests of it.

    Attributes:
        agent: Agent name.
        epoch: Its epoch.
        endpoint: Where it listens.
        room: Requests that it has KV cache for.
        server_key: Public key that it must have; "" where sockets have no keys.
    """

    agent: AgentId
    epoch: Count
    endpoint: Endpoint
    room: Small
    server_key: ServerKey = ""


class Migrate(Message, frozen=True):
    """Move running requests to another agent, each with its KV cache or by prefilling again.

    Said twice it changes nothing: a request that is on its way, or gone, is left alone.

    Attributes:
        model: Deployment name.
        agent: Where they go.
        epoch: Epoch of that agent.
        endpoint: Where it listens.
        request_ids: Which of them; none means all of that deployment.
        method: Copy the KV cache, prefill again, or what costs less for each.
        server_key: Public key that it must have; "" where sockets have no keys.
        room: Requests that it has KV cache for; only of interest beside `others`.
        others: Where else they can go, if one agent has not room for all: each goes where all
            copies together take the least time.
    """

    model: ModelName
    agent: AgentId
    epoch: Count
    endpoint: Endpoint
    request_ids: Annotated[tuple[RequestId, ...], Meta(max_length=4096)] = ()
    method: Literal["cheapest", "copy", "recompute"] = "cheapest"
    server_key: ServerKey = ""
    room: Small = 0
    others: Annotated[tuple[MoveTarget, ...], Meta(max_length=MOVE_TARGETS_MAX)] = ()


class Park(Message, frozen=True):
    """Give the device's context up once it holds no request; the summaries say when it is so."""


class Wake(Message, frozen=True):
    """Take the device's context again."""


Order = Load | Unload | Drain | Migrate | Park | Wake
"""What the scheduler tells an agent to do. Each may be said again and changes nothing then."""


class Direct(Message, frozen=True):
    """The consolidator asks the scheduler to pass an order on.

    Attributes:
        plan: Which plan it belongs to, for the answer.
        agent: Who is to do it.
        epoch: Epoch of that agent that the plan was made for; another one is refused.
        order: What to do.
    """

    plan: Count
    agent: AgentId
    epoch: Count
    order: Order


class Directed(Message, frozen=True):
    """Answer to `Direct`: the order was passed on, or why it was not."""

    plan: Count
    agent: AgentId
    error: ErrorInfo | None = None


class Ping(Message, frozen=True):
    """Are you there? Sent on every link, both ways."""

    nonce: Count


class Pong(Message, frozen=True):
    """Yes.

    Attributes:
        nonce: From the ping.
        epoch: Epoch of the process that answers.
        summary_ms: A scheduler's wish: an agent's summaries should be this far apart, or more.
    """

    nonce: Count
    epoch: Count
    summary_ms: SummaryMs = 0.0


class Reregister(Message, frozen=True):
    """The scheduler does not know this agent and epoch; it should register (again)."""

    scheduler_epoch: Count


# Agent → agent, when a request moves; and its client, which follows it

MOVED_TOKENS_MAX = 2**19
"""Tokens of a request that can move: an `Offer` with them is one frame."""
MOVED_LOGPROBS_MAX = 2**16
"""Logarithms that move with a request, those of the likeliest included."""
PIECE_BYTES_MAX = 512 * 1024
"""KV cache in one message."""
MoveKey = Annotated[str, Meta(min_length=1, max_length=128)]
"""Names one move of one request: source agent, its epoch, and a number."""
OutputIds = Annotated[tuple[int, ...], Meta(max_length=MOVED_TOKENS_MAX)]


class RequestState(msgspec.Struct, frozen=True, array_like=True):
    """How far a request has come.

    Attributes:
        output_ids: Tokens generated.
        elapsed_ms: Time since its client submitted it.
        silent_ms: Time since its last token; since submission before the first.
        energy_j: Joules attributed to it so far.
        energy_source: Measured only if all of them are.
        preemptions: Times it lost its KV blocks.
        moves: Times it has moved before.
        logprobs: How likely each of the tokens was, if that was asked for; None for those that
            another agent sent before its client came here.
    """

    output_ids: OutputIds
    elapsed_ms: Annotated[float, Meta(ge=0)]
    silent_ms: Annotated[float, Meta(ge=0)]
    energy_j: float
    energy_source: Provenance
    preemptions: Count = 0
    moves: Count = 0
    logprobs: Annotated[tuple[Logprobs | None, ...], Meta(max_length=MOVED_TOKENS_MAX)] = ()


class Offer(Message, frozen=True):
    """Source → target: will you take this request? Until `Handover` it stays the source's.

    Attributes:
        key: Names the move.
        epoch: Epoch of the target that the move was planned for.
        host: Names the source's host; on the same one, memory can be shared.
        generate: What its client asked for, the prompt as token ids.
        state: How far it has come.
        method: Blocks of the KV cache will follow, or the target prefills the tokens itself.
    """

    key: MoveKey
    epoch: Count
    host: Annotated[str, Meta(max_length=128)]
    generate: Generate
    state: RequestState
    method: Literal["copy", "recompute"]


class Ready(Message, frozen=True):
    """Target → source: there is room, go on.

    Attributes:
        key: Of the move.
        window: KV blocks that may be under way at once.
        shared: By shared memory.
    """

    key: MoveKey
    window: Annotated[int, Meta(ge=1, le=4096)]
    shared: bool


class Declined(Message, frozen=True):
    """Target → source: no. This process has not taken the request, and never will by this move.

    Attributes:
        key: Of the move.
        epoch: Of the target; one of another epoch knows nothing of what the last one took.
        error: Why.
    """

    key: MoveKey
    epoch: Count
    error: ErrorInfo


class KvBlocks(Message, frozen=True):
    """Source → target: contents of KV blocks, in order.

    Attributes:
        key: Of the move.
        first: Which block of the request, or the first of several in shared memory.
        count: How many; 1 unless in shared memory.
        block_bytes: Size of a block.
        offset: Where in the block `data` begins.
        data: Part of the block; b"" where it is in shared memory.
        checksum: CRC-32 of `data`.
        memory: Where the shared memory is: block n is its n-th, modulo the window.
    """

    key: MoveKey
    first: Small
    count: Annotated[int, Meta(ge=1, le=4096)]
    block_bytes: Annotated[int, Meta(ge=1, le=2**28)]
    offset: Annotated[int, Meta(ge=0, le=2**28)] = 0
    data: Annotated[bytes, Meta(max_length=PIECE_BYTES_MAX)] = b""
    checksum: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    memory: Annotated[str, Meta(max_length=64)] = ""


class Have(Message, frozen=True):
    """Target → source: what has arrived; the window moves on by it.

    Attributes:
        key: Of the move.
        blocks: KV blocks that are in the target's pool.
        tokens: Tokens that it has prefilled itself.
        attached: The request's client has come.
    """

    key: MoveKey
    blocks: Small
    tokens: Small
    attached: bool


class Follow(Message, frozen=True):
    """Source → target: the output has grown; prefill these too.

    Attributes:
        key: Of the move.
        index: Index of the first of them in the output.
        token_ids: Output tokens.
    """

    key: MoveKey
    index: Count
    token_ids: OutputIds


class Handover(Message, frozen=True):
    """Source → target: it is yours. Said until `Taken`; the source computes it no more.

    Attributes:
        key: Of the move.
        blocks: KV blocks that were sent; those that did not arrive are prefilled again.
        tokens: Tokens in them.
        state: How far the request has come.
    """

    key: MoveKey
    blocks: Small
    tokens: Small
    state: RequestState


class Taken(Message, frozen=True):
    """Target → source: it is mine, and I need nothing more for it."""

    key: MoveKey


class Abandon(Message, frozen=True):
    """Source → target: the move is off, or nobody wants the request any more."""

    key: MoveKey


class Moving(Message, frozen=True):
    """Agent → client: the request may go on at another agent; say `Attach` there.

    Attributes:
        request_id: As submitted.
        agent: The other one.
        epoch: Its epoch.
        endpoint: Where it listens.
        key: Names the move.
        server_key: Public key that it must have; "" where sockets have no keys.
    """

    request_id: RequestId
    agent: AgentId
    epoch: Count
    endpoint: Endpoint
    key: MoveKey
    server_key: ServerKey = ""


class Attach(Message, frozen=True):
    """Client → target: I am this request's client. Send me what I have not got, once you have it.

    Answered with `Attached` as soon as the target has the request, with `Failed` if it never will.

    Attributes:
        request_id: As submitted.
        key: From `Moving`.
        received: Tokens that the client has.
    """

    request_id: RequestId
    key: MoveKey
    received: Count


class Attached(Message, frozen=True):
    """Target → client: the request is here; its tokens come from `index` on."""

    request_id: RequestId
    key: MoveKey
    index: Count


class Twin(Message, frozen=True):
    """One scheduler of two tells the other how it is; the primary answers with the same.

    Attributes:
        epoch: Of its process.
        standby: It is the one that waits when both start together.
        active: It serves.
        term: Grows with each that begins to serve.
        ticket: The last one it gave out.
    """

    epoch: Count
    standby: bool
    active: bool
    term: Count
    ticket: Count


AnyMessage = (
    Submit
    | GetCluster
    | Placed
    | Refused
    | Cluster
    | Generate
    | Probe
    | Cancel
    | Accepted
    | Tokens
    | Finished
    | Failed
    | Register
    | Welcome
    | Reregister
    | Summary
    | Leave
    | Load
    | Unload
    | Drain
    | Migrate
    | Park
    | Wake
    | Direct
    | Directed
    | Consolidation
    | Ping
    | Pong
    | Offer
    | Ready
    | Declined
    | KvBlocks
    | Have
    | Follow
    | Handover
    | Taken
    | Abandon
    | Moving
    | Attach
    | Attached
    | Twin
)

_VERSION_BYTE = bytes([PROTOCOL_VERSION])
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that msgspec raises for bytes it cannot take; the last two are no `DecodeError`."""
_raw_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_PLACE = re.compile(r"`\$\[(\d+)\]")
_FIELDS = {cls.__name__: cls.__struct_fields__ for cls in get_args(AnyMessage)}


def encode(message: AnyMessage) -> bytes:
    """`message` as one frame.

    Raises:
        FrameTooLargeError: The frame would exceed `FRAME_BYTES_MAX`.
    """
    frame = _VERSION_BYTE + _encoder.encode(message)
    if len(frame) > FRAME_BYTES_MAX:
        raise FrameTooLargeError(
            f"a {type(message).__name__} of {len(frame)} bytes",
            field="frame",
            expected=f"at most {FRAME_BYTES_MAX} bytes",
        )
    return frame


def decode(frame: bytes | memoryview) -> AnyMessage:
    """The message in `frame`.

    Raises:
        FrameTooLargeError: The frame exceeds `FRAME_BYTES_MAX`.
        ProtocolVersionError: Its first byte is not `PROTOCOL_VERSION`.
        ProtocolError: It is empty, not msgpack, or a field is wrong; `field` says which.
    """
    size = len(frame)
    if size > FRAME_BYTES_MAX:
        raise FrameTooLargeError(
            f"a frame of {size} bytes", field="frame", expected=f"at most {FRAME_BYTES_MAX} bytes"
        )
    if size == 0:
        raise ProtocolError(
            "an empty frame", field="frame", expected="a version byte and a message"
        )
    if frame[0] != PROTOCOL_VERSION:
        raise ProtocolVersionError(
            f"a frame of protocol version {frame[0]}",
            field="version",
            expected=str(PROTOCOL_VERSION),
        )
    body = memoryview(frame)[1:]
    try:
        return _decoder.decode(body)
    except _UNREADABLE as error:
        raise ProtocolError(
            f"not a festina message: {error}", field=_wrong_field(body, str(error))
        ) from error


def _wrong_field(body: memoryview, complaint: str) -> str:
    """Name of the field that msgspec complains about by its place in the array, else "frame"."""
    place = _PLACE.search(complaint)
    if place is None:
        return "frame"
    try:
        tag = msgspec.msgpack.decode(_raw_decoder.decode(body)[0], type=str)
    except _UNREADABLE:
        return "frame"
    names = _FIELDS.get(tag, ())
    index = int(place[1]) - 1
    return names[index] if 0 <= index < len(names) else "frame"
