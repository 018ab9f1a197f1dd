"""The nouns of the field, as plain frozen values. Units are last in names."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

Small = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""A count that `csrc/core` keeps in 32 bits: SMs, MHz, requests."""
COUNT_MAX = 2**53
Count = Annotated[int, Meta(ge=0, le=COUNT_MAX)]
"""Any other count; a double holds it exactly."""


class Phase(enum.IntEnum):
    """What a model step does. The values are shared with `csrc/core`."""

    PREFILL = 0
    DECODE = 1


class Provenance(enum.StrEnum):
    """How a figure came about. Measured and modelled figures are never added up unmarked."""

    MEASURED = "measured"
    MODELLED = "modelled"


class ModelState(enum.IntEnum):
    """Where a deployment's weights are on one device."""

    ABSENT = 0
    LOADING = 1
    READY = 2
    UNLOADING = 3


class FinishReason(enum.StrEnum):
    """Why a request ended well."""

    STOP = "stop"
    LENGTH = "length"


class Slo(msgspec.Struct, frozen=True, array_like=True):
    """Latency objectives of a request.

    Attributes:
        ttft_ms: Time from submission to the first token, > 0.
        tbt_ms: Time between tokens, p99 of the gaps a client sees, > 0.
    """

    ttft_ms: float
    tbt_ms: float


LOGPROBS_MAX = 20
"""Likeliest tokens that a request may ask about at each place of its output."""


class Logprobs(msgspec.Struct, frozen=True, array_like=True):
    """How likely a model found a token, whatever temperature and top_p: natural logarithms.

    Attributes:
        chosen: Of the token that was chosen.
        top: (token id, logarithm) of the likeliest ones, the likeliest first.
    """

    chosen: float
    top: Annotated[tuple[tuple[Count, float], ...], Meta(max_length=LOGPROBS_MAX)] = ()


class Sampling(msgspec.Struct, frozen=True, array_like=True):
    """How tokens are chosen.

    Attributes:
        temperature: 0 is greedy; otherwise in (0, 10].
        top_p: Nucleus mass in (0, 1].
        seed: Seed of the draws: same seed, prompt and weights give the same text.
        stop: Texts that end the output; they are not part of it. At most 4.
        ignore_eos: Go on past the model's end-of-text tokens (load generators).
        logprobs: Tell how likely each token was, and so many of the likeliest beside it, at most
            `LOGPROBS_MAX`; None tells nothing.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None


class OperatingPoint(msgspec.Struct, frozen=True, array_like=True):
    """How fast one device runs one task.

    Attributes:
        clock_mhz: SM clock of the whole device; 0 where it cannot be set or read.
        sms: SMs given to the task.
    """

    clock_mhz: int
    sms: int


class SmPartition(msgspec.Struct, frozen=True, array_like=True):
    """One side of a rung of the SM ladder of a device.

    Attributes:
        rung: Index in the device's ladder of partitions; 0 is the whole device.
        sms: SMs in this partition, as read back from the driver.
        side: Which of a rung's two disjoint halves; 0 where there is one.
    """

    rung: int
    sms: int
    side: int = 0


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """What a finished request cost.

    Attributes:
        input_tokens: Prompt tokens.
        output_tokens: Tokens generated.
        energy_j: Joules attributed to the request (DESIGN 4.4). Those of an agent that died with
            part of the output died with it.
        energy_source: Whether `energy_j` was measured or modelled.
        preemptions: Times the request lost its KV blocks and was prefilled again.
        moves: Times it moved to another device, all of which `energy_j` adds up.
        resumptions: Times the client had to go on at another agent, or at the same one anew.
    """

    input_tokens: int
    output_tokens: int
    energy_j: float
    energy_source: Provenance
    preemptions: int = 0
    moves: int = 0
    resumptions: int = 0


class ModelSummary(msgspec.Struct, frozen=True, array_like=True):
    """One deployment on one device, as the scheduler sees it.

    Attributes:
        model: Deployment name.
        state: Where its weights are.
        running: Requests in decode.
        waiting: Requests not yet through prefill.
        context_tokens: Tokens in the KV cache over all running requests.
        waiting_tokens: Prompt tokens still to be prefilled.
        tbt_ms: Tightest TBT objective among running requests; inf when there is none.
        requests_total: Requests that came since the agent started.
        input_tokens_total: Their prompt tokens.
        output_tokens_total: Tokens generated since the agent started.
    """

    model: str
    state: ModelState
    running: Small = 0
    waiting: Small = 0
    context_tokens: Count = 0
    waiting_tokens: Count = 0
    tbt_ms: float = float("inf")
    requests_total: Count = 0
    input_tokens_total: Count = 0
    output_tokens_total: Count = 0


class Health(msgspec.Struct, frozen=True, array_like=True):
    """How a device is.

    Attributes:
        temperature_c: Of its chip, in °C; None where there is no sensor.
        throttle: Why its clock is not higher, such as "power cap"; "idle" too.
    """

    temperature_c: Annotated[int, Meta(ge=-273, le=1000)] | None = None
    throttle: Annotated[tuple[Annotated[str, Meta(max_length=32)], ...], Meta(max_length=16)] = ()


class GpuSummary(msgspec.Struct, frozen=True, array_like=True):
    """One device at one moment, sent by its agent 10-50 times a second.

    Attributes:
        seq: Counts the summaries of this agent and epoch.
        clock_mhz: Current SM clock; 0 where there is none.
        clock_target_mhz: Clock that work runs at: what the agent has asked for, or what the driver
            gives where it cannot ask. `clock_mhz` is lower while a GPU is idle.
        sms_total: SMs of the device.
        sms_free: SMs not given to a running task.
        free_in_ms: Time until a new prefill could start (T_avail - now, paper section 3.3).
        kv_tokens_total: Tokens that the KV pools can hold.
        kv_tokens_free: Tokens that still fit.
        memory_free_bytes: Device memory for further weights; idle deployments make way for them.
        power_w: Power now.
        power_source: Whether `power_w` was measured or modelled.
        energy_j: Energy since the agent started.
        parked: The device holds no context; waking it costs time.
        models: Deployments that are resident or on the way.
        tickets: Placement tickets accepted since the last summary (`Placed.ticket`).
        draining: The device is being emptied: it takes what comes, but nothing should be sent.
        moving: Requests that are on their way to another agent.
        health: What keeps the device from running faster.
        settled_s: Time since the device was last parked or woken, or its agent started.
    """

    seq: Count
    clock_mhz: Small
    clock_target_mhz: Small
    sms_total: Small
    sms_free: Small
    free_in_ms: float
    kv_tokens_total: Count
    kv_tokens_free: Count
    memory_free_bytes: Count
    power_w: float
    power_source: Provenance
    energy_j: float
    parked: bool
    models: tuple[ModelSummary, ...] = ()
    tickets: tuple[Count, ...] = ()
    draining: bool = False
    moving: Small = 0
    health: Health = Health()
    settled_s: Annotated[float, Meta(ge=0)] = 0.0
