"""What the gateway tells of its requests to those who watch: the log, and a trace."""

from __future__ import annotations

import time
from collections.abc import Callable

from festina.errors import FestinaError
from festina.log import Field, Value, logger, tell
from festina.runtime.protocol.request import Ended
from festina.runtime.trace.file import Event, process_number

LOG = logger("gateway")
NAME = "gateway"


class GatewayWatch:
    """Hears how requests end.

    Args:
        add: Takes an event of a trace; None where there is none.
    """

    def __init__(self, add: Callable[[Event], None] | None = None) -> None:
        self._add = add
        if add is not None:
            self._tell("M", 0.0, {"name": "process_name", "args": {"name": NAME}})

    def ended(self, model: str, request_id: str, end: Ended, elapsed_s: float) -> None:
        """A request ended well.

        Args:
            model: Deployment name.
            request_id: Its name between processes.
            end: How it ended.
            elapsed_s: From its start to its end.
        """
        usage = end.usage
        fields: dict[Field, Value] = {
            "request_id": request_id,
            "model": model,
            "agent": end.agent,
            "seconds": round(elapsed_s, 4),
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "energy_j": round(usage.energy_j, 6),
            "energy_source": usage.energy_source.value,
            "reason": end.reason.value,
        }
        if end.ttft_ms is not None:
            fields["ttft_ms"] = round(end.ttft_ms, 3)
        tell(LOG, "request finished", fields)
        self._span(model, request_id, elapsed_s, fields)

    def failed(self, model: str, request_id: str, error: FestinaError, elapsed_s: float) -> None:
        """A request ended badly, or was cancelled."""
        fields: dict[Field, Value] = {
            "request_id": request_id,
            "model": model,
            "seconds": round(elapsed_s, 4),
            "code": error.code,
        }
        tell(LOG, "request failed", fields)
        self._span(model, request_id, elapsed_s, fields)

    def _span(
        self, model: str, request_id: str, elapsed_s: float, fields: dict[Field, Value]
    ) -> None:
        """The request as its HTTP client saw it: one row of the trace."""
        if self._add is None:
            return
        now = time.monotonic()
        row: Event = {"cat": "http", "id": request_id, "name": f"http {model}"}
        self._tell("b", now - elapsed_s, row | {"args": fields})
        self._tell("e", now, row)

    def _tell(self, phase: str, at: float, rest: Event) -> None:
        if self._add is not None:
            place: Event = {"ph": phase, "pid": process_number(NAME), "tid": 1, "ts": at * 1e6}
            self._add(place | rest)


def refused(status: int, code: str) -> None:
    """An answer that is an error; what it was asked is not told."""
    tell(LOG, "http error", {"status": status, "code": code})
