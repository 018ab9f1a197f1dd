"""How a request of this agent should move: what that would cost, from what is known here."""

from __future__ import annotations

from festina.control.local import LocalScheduler
from festina.control.migration import Method, Route, choose, copy_cost, recompute_cost, remaining_ms
from festina.device.base import Device
from festina.engine.base import BLOCK_TOKENS
from festina.messages import Migrate
from festina.runtime.protocol.agent_models import ModelTable
from festina.runtime.protocol.agent_move_out import MoveOut
from festina.runtime.protocol.agent_requests import Request
from festina.runtime.protocol.agent_transfers import sequence_of
from festina.runtime.protocol.remembered import Remembered

BYTES_PER_S = 1e9
"""What a copy gets through, until one has been timed."""
_BYTES_MIN = 1e6
_WEIGHT = 0.3


class Router:
    """Chooses the method of each move, and learns how fast copies to each agent are.

    Args:
        device: Read for its power.
        scheduler: Knows how long steps take.
        models: Sizes of KV blocks.
    """

    def __init__(self, device: Device, scheduler: LocalScheduler, models: ModelTable) -> None:
        self._device = device
        self._scheduler = scheduler
        self._models = models
        self._bytes_per_s: Remembered[str, float] = Remembered()

    def bytes_per_s(self, endpoint: str) -> float:
        """What a copy to that agent gets through; a guess until one has been timed."""
        return self._bytes_per_s.get(endpoint) or BYTES_PER_S

    def kv_bytes(self, request: Request) -> float:
        """KV cache that a copy of the request has to move; 0 before it has any."""
        loaded = self._models[request.message.model].loaded
        if request.sequence is None or loaded is None:
            return 0.0
        return float(request.sequence.cached * loaded.shape.kv_bytes_per_token)

    def method(self, request: Request, migrate: Migrate, now: float) -> Method | None:
        """How it should move; None if it would be over before that. An order is not judged."""
        if migrate.method != "cheapest":
            return migrate.method
        seq = sequence_of(request)
        lane, scheduler = self._scheduler.lanes[seq.model], self._scheduler
        if self._models[seq.model].loaded is None:
            return None
        power_w = self._device.power_w(now).value
        route = Route(self.bytes_per_s(migrate.endpoint), hold_w=power_w, prefill_w=power_w)
        chunk_tokens, point = scheduler.rules.chunk_tokens, scheduler.point
        costs = (
            copy_cost(self.kv_bytes(request), route),
            recompute_cost(len(seq.token_ids), chunk_tokens, lane.step_time, point, route),
        )
        batch = max(1, len(lane.decodes()))
        best = choose(costs, remaining_ms(seq, lane.step_time, point, batch))
        return None if best is None else best.method

    def learn(self, move: MoveOut, now: float) -> None:
        """A move is over: how fast was its copy?"""
        copied = move.block_bytes * (move.tokens // BLOCK_TOKENS)
        if copied >= _BYTES_MIN and now > move.began:
            known = self.bytes_per_s(move.endpoint)
            fresh = copied / (now - move.began)
            self._bytes_per_s.put(move.endpoint, known + _WEIGHT * (fresh - known))
