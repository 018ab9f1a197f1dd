"""When a request that was refused is tried again, and when it ends."""

from __future__ import annotations

import random

from festina.errors import DeviceError, FestinaError
from festina.runtime.protocol.client_effects import ClientLimits
from festina.runtime.protocol.request import Break, Request


class Retries:
    """Judges refusals.

    Args:
        limits: Bounds.
        rng: Spreads the pauses.
    """

    def __init__(self, limits: ClientLimits, rng: random.Random) -> None:
        self._limits = limits
        self._rng = rng

    def may_resume(self, request: Request) -> bool:
        """Whether it may be submitted again after its stream broke."""
        return request.resumptions < self._limits.resumptions_max

    def after(self, request: Request, refusal: FestinaError, now: float) -> float | FestinaError:
        """What follows from a refusal, by the scheduler or by an agent.

        Returns:
            Seconds until the next try, or the error that the request ends with.
        """
        if request.broken is not None:
            return self._after_break(request, request.broken, refusal, now)
        may_retry = request.tries < request.job.retries and request.outputs == 0
        if not may_retry or refusal.retry_after_ms <= 0:
            return refusal
        request.tries += 1
        return self._pause_s(request.tries - 1, refusal)

    def _after_break(
        self, request: Request, broken: Break, refusal: FestinaError, now: float
    ) -> float | FestinaError:
        """A stream that broke waits for a place, though its caller has asked for no retries."""
        if isinstance(broken.error, DeviceError):
            return broken.error  # no other device takes it: a second try would fail as the first
        if refusal.retry_after_ms <= 0 and not request.excluded:
            return refusal
        if now - broken.at >= self._limits.resume_s:
            return broken.error
        request.excluded = []  # an agent that has failed it may be back, or all there is
        broken.tries += 1
        return self._pause_s(broken.tries - 1, refusal)

    def _pause_s(self, tries: int, refusal: FestinaError) -> float:
        pause_s = self._limits.backoff_s * 2.0**tries * self._rng.uniform(1.0, 1.5)
        return min(max(pause_s, refusal.retry_after_ms / 1000), self._limits.backoff_s_max)
