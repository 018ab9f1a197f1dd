"""How often somebody may begin something. Pure."""

from __future__ import annotations

import math

from festina.errors import OverloadedError, ProtocolError


class RateLimitError(ProtocolError):
    """A key's requests come too fast: this one is refused before anything looks at it.

    It never travels; what it refuses with does.

    Attributes:
        request_id: Which.
        refusal: What its client is told.
    """

    def __init__(self, request_id: str, refusal: OverloadedError) -> None:
        super().__init__(refusal.message, field=refusal.field, expected=refusal.expected)
        self.request_id = request_id
        self.refusal = refusal


class RateLimit:
    """So many a second for each who asks, and so many at once after a pause.

    Keeps one number for each name, so names are to come from a list that ends, such as keys.

    Args:
        per_s: How many a second; 0 sets no limit.
        burst: How many at once, ≥ 1.
    """

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._slack_s = (burst - 1) / per_s if per_s else 0.0
        self._due: dict[str, float] = {}

    def take(self, name: str, now: float) -> None:
        """Count one more of `name`.

        Args:
            name: Who asks.
            now: Seconds on a clock that never goes back.

        Raises:
            OverloadedError: It is too early, and was not counted; `retry_after_ms` says for how
                long.
        """
        if not self._per_s:
            return
        due = max(now, self._due.get(name, now))
        wait_s = due - now - self._slack_s
        if wait_s > 0.0:
            raise OverloadedError(
                "this key's requests come too fast",
                field="key",
                expected=f"at most {self._per_s:g} a second",
                retry_after_ms=math.ceil(wait_s * 1e3),
            )
        self._due[name] = due + 1.0 / self._per_s
