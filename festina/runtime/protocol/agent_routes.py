"""How a request of this agent should move: what that would cost, from what is known here."""

from __future__ import annotations

from typing import Literal

from festina.control.local import LocalScheduler
from festina.control.migration import Method, Route, choose, copy_cost, recompute_cost, remaining_ms
from festina.device.base import Device
from festina.engine.base import BLOCK_TOKENS
from festina.runtime.protocol.agent_models import ModelTable
from festina.runtime.protocol.agent_move_out import MoveOut
from festina.runtime.protocol.agent_requests import Request
from festina.runtime.protocol.agent_transfers import sequence_of

BYTES_PER_S = 1e9
"""What a copy gets through, until one has been timed."""
_BYTES_MIN = 1e6
_WEIGHT = 0.3


class Router:
    """Chooses the method of each move, and learns how fast copies are.

    Args:
        device: Read for its power.
        scheduler: Knows how long steps take.
        models: Sizes of KV blocks.
    """

    def __init__(self, device: Device, scheduler: LocalScheduler, models: ModelTable) -> None:
        self._device = device
        self._scheduler = scheduler
        self._models = models
        self._bytes_per_s = BYTES_PER_S

    def method(
        self, request: Request, asked: Literal["cheapest", "copy", "recompute"], now: float
    ) -> Method | None:
        """How it should move; None if it would be over before that. An order is not judged."""
        if asked != "cheapest":
            return asked
        seq = sequence_of(request)
        lane, scheduler = self._scheduler.lanes[seq.model], self._scheduler
        loaded = self._models[seq.model].loaded
        if loaded is None:
            return None
        power_w = self._device.power_w(now).value
        route = Route(self._bytes_per_s, hold_w=power_w, prefill_w=power_w)
        kv_bytes = float(seq.cached * loaded.shape.kv_bytes_per_token)
        chunk_tokens, point = scheduler.rules.chunk_tokens, scheduler.point
        costs = (
            copy_cost(kv_bytes, route),
            recompute_cost(len(seq.token_ids), chunk_tokens, lane.step_time, point, route),
        )
        batch = max(1, len(lane.decodes()))
        best = choose(costs, remaining_ms(seq, lane.step_time, point, batch))
        return None if best is None else best.method

    def learn(self, move: MoveOut, now: float) -> None:
        """A move is over: how fast was its copy?"""
        copied = move.block_bytes * (move.tokens // BLOCK_TOKENS)
        if copied >= _BYTES_MIN and now > move.began:
            self._bytes_per_s += _WEIGHT * (copied / (now - move.began) - self._bytes_per_s)
