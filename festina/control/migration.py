"""Whether, how and where a running request should move (DESIGN 4.3). Pure.

A move copies the request's KV cache, or has the target prefill its tokens again, while the source
goes on decoding. Costs are in joules, so that the two compare: the work itself, and what both
devices draw to keep the request until the move is over.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from festina import _core
from festina.control.sequence import Sequence
from festina.control.step_time import StepTime, StepWork, predict_ms
from festina.types import OperatingPoint

Method = Literal["copy", "recompute"]

COPY_PJ_PER_BYTE = 120.0
"""Modelled: a byte is read and written twice on its way, at 30 pJ of DRAM each time."""

SETTLE_MS = 50.0
"""Messages to and fro, and the steps that a move waits for at both ends."""


@dataclass(frozen=True, slots=True)
class Route:
    """The way between two devices.

    Attributes:
        bytes_per_s: What a copy gets through, > 0.
        hold_w: What both devices draw to keep a request, beside the work of the move.
        prefill_w: What the target draws while it prefills.
    """

    bytes_per_s: float
    hold_w: float
    prefill_w: float


@dataclass(frozen=True, slots=True)
class MoveCost:
    """A way to move one request.

    Attributes:
        method: How.
        duration_ms: From the offer to the hand-over.
        energy_j: Joules that it costs (modelled).
    """

    method: Method
    duration_ms: float
    energy_j: float


def copy_cost(kv_bytes: float, route: Route) -> MoveCost:
    """Copying that much KV cache."""
    duration_ms = SETTLE_MS + kv_bytes / route.bytes_per_s * 1e3
    energy_j = kv_bytes * COPY_PJ_PER_BYTE * 1e-12 + route.hold_w * duration_ms / 1e3
    return MoveCost("copy", duration_ms, energy_j)


def recompute_cost(
    tokens: int, chunk_tokens: int, step_time: StepTime, point: OperatingPoint, route: Route
) -> MoveCost:
    """Prefilling so many tokens again, in chunks; the target is taken to be as fast as the source.

    Args:
        tokens: Prompt and output so far, ≥ 0.
        chunk_tokens: Prefill tokens in one step, ≥ 1.
        step_time: Predicts steps of the model.
        point: Clock and SMs.
        route: The way between the devices.
    """
    cost, prefill_ms = step_time.cost(point), 0.0
    for start in range(0, tokens, chunk_tokens):
        size = min(chunk_tokens, tokens - start)
        prefill_ms += predict_ms(cost, StepWork(size, 0, 0, float(start)))
    duration_ms = SETTLE_MS + prefill_ms
    energy_j = (route.prefill_w * prefill_ms + route.hold_w * duration_ms) / 1e3
    return MoveCost("recompute", duration_ms, energy_j)


def remaining_ms(seq: Sequence, step_time: StepTime, point: OperatingPoint, batch: int) -> float:
    """How long the request is expected to stay: prompt to go, then its predicted output.

    Args:
        seq: The request; `predicted_tokens` is its expected output.
        step_time: Predicts steps of its model.
        point: Clock and SMs.
        batch: Sequences that decode with it, ≥ 1.
    """
    cost = step_time.cost(point)
    prompt = seq.pending_tokens if not seq.decoding else 0
    prompt_ms = predict_ms(cost, StepWork(prompt, 0, 0, float(seq.cached))) if prompt else 0.0
    outputs = max(1, seq.predicted_tokens - seq.output_tokens)
    step_ms = predict_ms(cost, StepWork(0, batch, batch * seq.expected_tokens))
    return prompt_ms + outputs * max(step_ms, seq.pace * seq.slo.tbt_ms)


def choose(costs: Items[MoveCost], remaining: float) -> MoveCost | None:
    """The cheapest that is over before the request is; None if there is none.

    Args:
        costs: Ways to move it.
        remaining: How long it is expected to stay, in milliseconds.
    """
    in_time = [cost for cost in costs if cost.duration_ms < remaining]
    return min(in_time, key=lambda cost: cost.energy_j, default=None)


def assign(
    kv_bytes: Items[float], bytes_per_s: NDArray[np.float64], room: Items[int]
) -> list[int | None]:
    """Which target each request goes to, so that all copies together take the least time.

    The Hungarian method on bytes over bandwidth, where each target takes as many as it has room.

    Args:
        kv_bytes: Per request, what has to be copied.
        bytes_per_s: Bandwidth, float64 (requests, targets), > 0 and finite.
        room: Per target, how many requests it can take.

    Returns:
        Per request the index of its target, or None where there is no room for all: the requests
        with the most bytes stay.

    Raises:
        ValueError: The shapes do not fit together, or a bandwidth is not positive.
    """
    requests, targets = len(kv_bytes), len(room)
    if bytes_per_s.shape != (requests, targets):
        raise ValueError(f"bandwidths {bytes_per_s.shape}: expected {(requests, targets)}")
    if not np.all(np.isfinite(bytes_per_s) & (bytes_per_s > 0.0)):
        raise ValueError("a bandwidth is not positive and finite")
    where: list[int | None] = [None] * requests
    moving = sorted(range(requests), key=lambda row: (kv_bytes[row], row))[: sum(room)]
    if not moving:
        return where
    sizes = np.asarray(kv_bytes, np.float64)[moving]
    costs = sizes[:, None] / bytes_per_s[moving]
    for row, target in zip(moving, _core.assign(costs, list(room)), strict=True):
        where[row] = target
    return where
