"""The text of a profile: one file per (device kind, model), provenance in every row.

`# key: value` lines, one header row, then CSV. Measured and modelled profiles are written by the
same code, so that they differ in `source` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from festina.profile_format import COLUMNS, FORMAT, PHASES


@dataclass(frozen=True, slots=True)
class ProfileHead:
    """What holds for a whole profile.

    Attributes:
        device: Device kind.
        model: Model name.
        sms_total: SMs of the device.
        memory_bytes: Its memory for weights and KV cache.
        weight_bytes: Memory that the weights occupy.
        kv_bytes_per_token: Memory of one token's keys and values.
        context_tokens: Longest prompt plus output.
        load_ms: Time to make the weights resident.
        wake_ms: Time from parked to ready.
        parked_w: Power of the parked device.
        power_source: Where power comes from: "measured" or "modelled".
        made_by: The command that made the profile.
        power_cap_w: Power cap; None where there is none.
        date: Day of a measurement, ISO 8601; "" for what depends on no day.
        machine: Processor of a measurement; "" for what depends on no machine.
    """

    device: str
    model: str
    sms_total: int
    memory_bytes: int
    weight_bytes: int
    kv_bytes_per_token: int
    context_tokens: int
    load_ms: float
    wake_ms: float
    parked_w: float
    power_source: str
    made_by: str
    power_cap_w: float | None = None
    date: str = ""
    machine: str = ""


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One cell, or the idle power of one clock (`phase` "idle").

    Attributes:
        phase: "prefill", "decode" or "idle".
        sms: SMs; 0 for idle.
        clock_mhz: Clock asked for; 0 where a device has none.
        tokens: Prefill: new tokens. Decode: batch. 0 for idle.
        context: Prefill: cached tokens. Decode: context tokens per sequence. 0 for idle.
        latency_ms: Duration of a step; 0 for idle.
        power_w: Power above idle at that clock; for idle, the idle power with a context.
        flops_per_s: Arithmetic rate.
        bytes_per_s: Memory traffic.
        spread: Relative standard deviation of a step's latency.
        samples: Steps measured; 0 for a modelled row.
        source: "measured" or "modelled": where `latency_ms` comes from.
    """

    phase: str
    sms: int
    clock_mhz: int
    tokens: int
    context: int
    latency_ms: float
    power_w: float
    flops_per_s: float
    bytes_per_s: float
    spread: float
    samples: int
    source: str


def format_profile(head: ProfileHead, rows: Iterable[ProfileRow]) -> str:
    """The text of a profile: rows in the order that readers want, figures with six digits."""
    lines = [f"# format: {FORMAT}"]
    for key in ProfileHead.__slots__:
        value = getattr(head, key)
        if value not in ("", None):
            lines.append(f"# {key}: {_text(value)}")
    lines.append(",".join(COLUMNS))
    ordered = sorted(rows, key=_order)
    lines += (",".join(_text(getattr(row, column)) for column in COLUMNS) for row in ordered)
    return "\n".join(lines) + "\n"


def write_profile(folder: Path, head: ProfileHead, rows: Iterable[ProfileRow]) -> Path:
    """Write `folder`/<device>/<model>.csv whole or not at all; gives its path."""
    path = folder / head.device / f"{head.model}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".csv.part")
    unfinished.write_text(format_profile(head, rows), encoding="utf-8")
    unfinished.replace(path)
    return path


def _order(row: ProfileRow) -> tuple[int, ...]:
    """By phase, then ascending by SMs, clock, tokens and context."""
    return PHASES.index(row.phase), row.sms, row.clock_mhz, row.tokens, row.context


def _text(value: float | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
