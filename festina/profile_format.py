"""The text of a profile file: its layout, what its rows say, and the one writer of it.

`# key: value` lines (the fields of `ModelInfo`), one header row (`COLUMNS`), then CSV. Measured,
modelled and corrected profiles are written by the same code, so that they differ in `source` and
nowhere else. `festina.control.profile_csv` reads and checks it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from festina.types import Provenance

FORMAT = 1
"""Version of the layout, the first metadata line."""

PHASES = ("prefill", "decode", "idle")
"""What a row can speak of, in the order of the file."""

COLUMNS = (
    "phase",
    "sms",
    "clock_mhz",
    "tokens",
    "context",
    "latency_ms",
    "power_w",
    "flops_per_s",
    "bytes_per_s",
    "spread",
    "samples",
    "source",
)
"""The header row."""

Text = Annotated[str, Meta(min_length=1, max_length=127)]
Amount = Annotated[int, Meta(ge=1)]
Watts = Annotated[float, Meta(ge=0)]
Millis = Annotated[float, Meta(ge=0)]


class ModelInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The head of a profile file.

    Attributes:
        format: Version of the file format.
        device: Kind of device.
        model: Deployment name.
        sms_total: SMs of the device; 1 for a CPU.
        memory_bytes: Device memory for weights and KV cache.
        weight_bytes: Memory that the weights take.
        kv_bytes_per_token: KV cache of one token over all layers.
        context_tokens: Longest prompt plus output.
        load_ms: Cold load of the weights.
        wake_ms: From parked to ready.
        parked_w: Power of the device without a context.
        power_source: How the power of all rows came about; cells say it of their latency.
        made_by: The command that made the file.
        power_cap_w: Power limit of the device; infinite where there is none.
        date: Day of a measurement, ISO 8601; "" for what depends on no day.
        machine: Processor that was measured; "" for what depends on no machine.
    """

    format: Amount = FORMAT
    device: Text
    model: Text
    sms_total: Amount
    memory_bytes: Amount
    weight_bytes: Amount
    kv_bytes_per_token: Amount
    context_tokens: Amount
    load_ms: Millis
    wake_ms: Millis
    parked_w: Watts
    power_source: Provenance = Provenance.MODELLED
    made_by: str = ""
    power_cap_w: Watts = math.inf
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
        source: "measured", "modelled" or "corrected": where `latency_ms` comes from.
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


def format_profile(info: ModelInfo, rows: Iterable[ProfileRow], digits: int | None = 6) -> str:
    """The text of a profile: rows in the order that readers want.

    Args:
        info: Its head.
        rows: In any order.
        digits: Of figures; None writes as many as give the same figure back.
    """
    lines = [
        f"# {name}: {_text(value, digits)}"
        for name, value in msgspec.structs.asdict(info).items()
        if value not in ("", math.inf)
    ]
    lines.append(",".join(COLUMNS))
    lines += (
        ",".join(_text(getattr(row, column), digits) for column in COLUMNS)
        for row in sorted(rows, key=_order)
    )
    return "\n".join(lines) + "\n"


def write_profile_file(
    path: Path, info: ModelInfo, rows: Iterable[ProfileRow], digits: int | None = 6
) -> None:
    """Write `format_profile` to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(format_profile(info, rows, digits), encoding="utf-8")
    unfinished.replace(path)


def _order(row: ProfileRow) -> tuple[int, ...]:
    """By phase, then ascending by SMs, clock, tokens and context."""
    return PHASES.index(row.phase), row.sms, row.clock_mhz, row.tokens, row.context


def _text(value: float | str, digits: int | None) -> str:
    if digits is None or not isinstance(value, float):
        return str(value)
    return f"{value:.{digits}g}"
