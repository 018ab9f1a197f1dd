"""A window of a simulation as a Chrome trace, for ui.perfetto.dev or chrome://tracing.

A process is a GPU, a thread is a deployment on it. Steps of one deployment that overlap get
further threads, because events of a thread must nest. Clock and watts are counters of the GPU;
they keep their value until the next span begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from festina.errors import BadRequestError
from festina.simulator.result import PolicyResult, Span

CLUSTER_LANE = "GPU"
"""Thread of what concerns the whole GPU."""

Event = dict[str, object]


def chrome_trace(result: PolicyResult) -> bytes:
    """The JSON of the window that the run recorded.

    Raises:
        BadRequestError: It recorded none.
    """
    if result.window is None:
        raise BadRequestError(
            f"{result.policy} recorded no spans", field="window", expected="a trace window"
        )
    return msgspec.json.encode(
        {
            "traceEvents": list(_events(result.window)),
            "displayTimeUnit": "ms",
            "otherData": {"policy": result.policy, "modelled": True},
        }
    )


def _events(spans: Sequence[Span]) -> Iterator[Event]:
    threads: dict[tuple[int, str], list[float]] = {}
    numbers: dict[tuple[int, str, int], int] = {}
    counters: dict[tuple[int, str], float] = {}
    for gpu in sorted({span.gpu for span in spans}):
        yield _name("process_name", gpu, 0, f"GPU {gpu}")
    for span in sorted(spans, key=lambda span: (span.start_ms, span.gpu)):
        lane = span.model or CLUSTER_LANE
        place = _free_place(threads.setdefault((span.gpu, lane), []), span)
        key = (span.gpu, lane, place)
        if key not in numbers:
            numbers[key] = 1 + sum(gpu == span.gpu for gpu, _, _ in numbers)
            yield _name(
                "thread_name", span.gpu, numbers[key], lane + f" ({place + 1})" * (place > 0)
            )
        yield _complete(span, numbers[key])
        for counter, value in (("clock MHz", span.clock_mhz), ("power W", span.power_w)):
            if value and counters.get((span.gpu, counter)) != value:
                counters[span.gpu, counter] = value
                yield _counter(span, counter, value)


def _free_place(ends_ms: list[float], span: Span) -> int:
    """The first place whose last span has ended, taken by this one."""
    rounding_ms = 1e-6
    for place, end_ms in enumerate(ends_ms):
        if end_ms <= span.start_ms + rounding_ms:
            ends_ms[place] = span.start_ms + span.duration_ms
            return place
    ends_ms.append(span.start_ms + span.duration_ms)
    return len(ends_ms) - 1


def _name(what: str, gpu: int, thread: int, name: str) -> Event:
    return {"name": what, "ph": "M", "pid": gpu, "tid": thread, "args": {"name": name}}


def _complete(span: Span, thread: int) -> Event:
    return {
        "name": span.name,
        "cat": "modelled",
        "ph": "X",
        "pid": span.gpu,
        "tid": thread,
        "ts": 1e3 * span.start_ms,
        "dur": 1e3 * span.duration_ms,
        "args": {
            "model": span.model,
            "clock_mhz": span.clock_mhz,
            "batch": span.batch,
            "tokens": span.tokens,
            "sms": span.sms,
        },
    }


def _counter(span: Span, name: str, value: float) -> Event:
    return {
        "name": name,
        "ph": "C",
        "pid": span.gpu,
        "ts": 1e3 * span.start_ms,
        "args": {name.split()[-1]: value},
    }
