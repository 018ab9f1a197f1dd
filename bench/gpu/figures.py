"""The figures of a run: their file, and the table of those that are wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

FORMAT = 1
NOT_MEASURED = "not yet measured"


class Bar(msgspec.Struct, frozen=True):
    """What a figure has to reach.

    Attributes:
        value: The bar.
        most: Whether it is the most that passes; else the least.
    """

    value: float
    most: bool

    def passes(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value <= self.value if self.most else value >= self.value

    def __str__(self) -> str:
        return f"{'≤' if self.most else '≥'} {self.value:g}"


class Figure(msgspec.Struct, frozen=True):
    """One number.

    Attributes:
        name: Unique; `WANTED` knows the ones that are asked for.
        text: What it says, for people.
        unit: Its unit.
        value: The number; None where it was not measured.
        bar: What it has to reach, or None.
    """

    name: str
    text: str
    unit: str
    value: float | None = None
    bar: Bar | None = None

    @property
    def verdict(self) -> str:
        """Whether it passes, for people."""
        if self.value is None or self.bar is None:
            return ""
        return "passes" if self.bar.passes(self.value) else "misses"


class Series(msgspec.Struct, frozen=True):
    """Curves over one axis.

    Attributes:
        name: What they show.
        x: What the axis measures, with its unit.
        y: What they measure, with its unit.
        lines: Label → (x, y), ascending in x.
    """

    name: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]]


class Result(msgspec.Struct, frozen=True):
    """All of one run.

    Attributes:
        device: The GPU's name.
        driver: Its driver.
        date: Day, ISO 8601.
        command: What was run.
        clocks: Whether clocks could be set, or why not.
        versions: Distribution → version.
        figures: Every wanted figure, measured or not, and whatever else was measured.
        series: Curves.
        problems: What could not be measured, and why.
        unavailable: What this machine has not, and why.
        test_data: Nothing was measured: made up for tests.
        format: Version of this layout.
    """

    device: str
    driver: str
    date: str
    command: str
    clocks: str
    versions: dict[str, str]
    figures: tuple[Figure, ...]
    series: tuple[Series, ...] = ()
    problems: tuple[str, ...] = ()
    unavailable: tuple[str, ...] = ()
    test_data: bool = False
    format: int = FORMAT


@dataclass(slots=True)
class Outcome:
    """What one bench gives.

    Attributes:
        values: Name of a figure → its value.
        series: Curves.
        unavailable: What this machine has not, and why: no failure, and no figure.
    """

    values: dict[str, float] = field(default_factory=dict)
    series: list[Series] = field(default_factory=list)
    unavailable: list[str] = field(default_factory=list)


def at_most(value: float) -> Bar:
    """A bar from above."""
    return Bar(value, most=True)


def at_least(value: float) -> Bar:
    """A bar from below."""
    return Bar(value, most=False)


WANTED = (
    Figure("ladder_ms", "making the ladder of SM partitions", "ms"),
    Figure("ladder_memory_mib", "device memory of one partition", "MiB"),
    Figure("rung_switch_us", "switching a rung", "µs", bar=at_most(10)),
    Figure("prefill_sm_half_share", "prefill speed on half of the SMs", "of whole"),
    Figure("decode_sm_half_share", "decode speed on half of the SMs", "of whole"),
    Figure("decode_paced_whole_w", "paced decode, whole device", "W"),
    Figure("decode_paced_half_w", "paced decode on half of the SMs", "W"),
    Figure(
        "pair_whole_tbt_p99_ms", "decode beside another model's prefill, taking turns", "ms p99"
    ),
    Figure("pair_halves_tbt_p99_ms", "the same on two halves of a rung", "ms p99"),
    Figure("pair_whole_prefill_tokens_per_s", "that prefill, taking turns", "tokens/s"),
    Figure("pair_halves_prefill_tokens_per_s", "that prefill on the other half", "tokens/s"),
    Figure("pair_whole_j_per_token", "both, taking turns", "J/token"),
    Figure("pair_halves_j_per_token", "both on two halves", "J/token"),
    Figure("kv_same_gpu_ceiling_gb_per_s", "the device's copy ceiling", "GB/s"),
    Figure(
        "kv_same_gpu_16k_ceiling_share", "KV copy, 16 KiB pages", "of ceiling", bar=at_least(0.8)
    ),
    Figure("kv_same_gpu_16k_over_async", "the same over cudaMemcpyAsync", "×", bar=at_least(5)),
    Figure("kv_pinned_h2d_16k_gb_per_s", "KV from pinned memory, 16 KiB", "GB/s", bar=at_least(40)),
    Figure("decode_8b_ms", "decode of an 8B shape at batch 1", "ms"),
    Figure("decode_8b_over_floor", "the same over weights / read bandwidth", "×", bar=at_most(1.3)),
    Figure("device_read_gb_per_s", "reading memory (that floor)", "GB/s"),
    Figure("device_copy_gb_per_s", "copying it, reads and writes counted", "GB/s"),
    Figure("decode_8b_over_torch", "the same over plain PyTorch", "×", bar=at_most(1.0)),
    Figure("idle_bare_w", "idle, no context", "W"),
    Figure("idle_bare_mhz", "SM clock, no context", "MHz"),
    Figure("idle_context_w", "idle, with a context", "W"),
    Figure("idle_context_mhz", "SM clock, with a context", "MHz"),
    Figure("idle_60gb_w", "idle, 60 GB resident", "W"),
    Figure("idle_60gb_mhz", "SM clock, 60 GB resident", "MHz"),
    Figure("idle_after_0s_w", "right after work", "W"),
    Figure("idle_after_0s_mhz", "SM clock right after work", "MHz"),
    Figure("idle_after_10s_w", "10 s after work", "W"),
    Figure("idle_after_10s_mhz", "SM clock 10 s after work", "MHz"),
    Figure("idle_after_60s_w", "60 s after work", "W"),
    Figure("idle_after_60s_mhz", "SM clock 60 s after work", "MHz"),
    Figure("serving_festina_j_per_token", "two models under festina's local scheduler", "J/token"),
    Figure("serving_flat_out_j_per_token", "the same flat out, same objectives", "J/token"),
    Figure("serving_saved_share", "energy saved", "of flat out"),
    Figure("serving_festina_attainment", "objectives met under festina", "of requests"),
    Figure("serving_flat_out_attainment", "objectives met flat out", "of requests"),
    Figure("profile_3b_min", "profile of a 3B shape", "min", bar=at_most(40)),
    Figure("profile_8b_min", "profile of an 8B shape", "min", bar=at_most(40)),
)
"""Every figure that is asked for, in the order of the table."""


def assemble(values: dict[str, float]) -> tuple[Figure, ...]:
    """All wanted figures with what was measured, then whatever else was."""
    known = [msgspec.structs.replace(one, value=values.get(one.name)) for one in WANTED]
    names = {one.name for one in WANTED}
    others = [Figure(name, name.replace("_", " "), "", values[name]) for name in values]
    return (*known, *(one for one in others if one.name not in names))


def wanted_table(values: dict[str, float] | None = None) -> str:
    """The figures as a Markdown table; those without a value are marked."""
    lines = ["| what | figure | unit | bar |", "| --- | --- | --- | --- |"]
    for one in assemble(values or {}):
        value = NOT_MEASURED if one.value is None else f"{one.value:.4g}"
        verdict = f", {one.verdict}" if one.verdict else ""
        lines.append(f"| {one.text} | {value} | {one.unit} | {one.bar or ''}{verdict} |")
    return "\n".join(lines) + "\n"


def write_result(path: Path, result: Result) -> None:
    """Write a run's file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    unfinished.replace(path)


def read_result(path: Path) -> Result:
    """Read a run's file.

    Raises:
        msgspec.ValidationError: It has another layout.
    """
    return msgspec.json.decode(path.read_bytes(), type=Result)
