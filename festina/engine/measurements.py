"""Measured points of a profile, one a line, kept as they come so that a run can go on later.

The first line says what was being measured: a run goes on only with the same device, model and
plan. Beside the figures of a profile's row, each line says at which clock its steps really ran,
how long its energy window was and how much of that was work.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from festina.engine.profile_plan import Point, ProfilePlan
from festina.errors import ProfileError
from festina.profile_format import ProfileRow
from festina.types import Provenance

FORMAT = 1
PARTIAL = ".partial.jsonl"
"""End of the name of a file that a run adds to."""
WHOLE = ".measurements.jsonl"
"""End of the name of one that is complete."""


class Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One measured point.

    Attributes:
        phase: As in `Point`.
        sms: As in `Point`.
        clock_mhz: As in `Point`: asked for.
        tokens: As in `Point`.
        context: As in `Point`.
        latency_ms: Median duration of a step; 0 for idle.
        power_w: Mean power of a step above idle; for idle, the idle power.
        power_source: Whether a sensor measured it.
        flops_per_s: Arithmetic rate.
        bytes_per_s: Memory traffic.
        spread: Relative standard deviation of a step's latency.
        samples: Steps measured.
        observed_mhz: Median clock while they ran; 0 where it cannot be read.
        window_s: Time over which energy was counted.
        covered: Share of the window that was spent in steps.
        temperature_c: Of the chip at its end; None without a sensor.
        throttle: Why the clock was not higher at its end.
    """

    phase: str
    sms: int
    clock_mhz: int
    tokens: int
    context: int
    latency_ms: float
    power_w: float
    power_source: Provenance
    flops_per_s: float = 0.0
    bytes_per_s: float = 0.0
    spread: float = 0.0
    samples: int = 1
    observed_mhz: int = 0
    window_s: float = 0.0
    covered: float = 0.0
    temperature_c: int | None = None
    throttle: tuple[str, ...] = ()

    @property
    def point(self) -> Point:
        """Which point of the plan it is."""
        return Point(self.phase, self.sms, self.clock_mhz, self.tokens, self.context)

    def row(self) -> ProfileRow:
        """The row of a profile. Durations are always measured; idle rows have none but power."""
        idle = self.phase == "idle"
        return ProfileRow(
            phase=self.phase,
            sms=self.sms,
            clock_mhz=self.clock_mhz,
            tokens=self.tokens,
            context=self.context,
            latency_ms=self.latency_ms,
            power_w=self.power_w,
            flops_per_s=self.flops_per_s,
            bytes_per_s=self.bytes_per_s,
            spread=self.spread,
            samples=self.samples,
            source=(self.power_source if idle else Provenance.MEASURED).value,
        )


class RunIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file's measurements are of.

    Attributes:
        device: Kind of device.
        model: Name of the profile.
        weights: Weights that were measured.
        plan: The plan.
        format: Version of the file's layout.
    """

    device: str
    model: str
    weights: str
    plan: ProfilePlan
    format: int = FORMAT


class MeasurementStore:
    """Measurements of one run in a file, appended one by one. Not thread-safe.

    Args:
        profile: The profile that is being measured; the file lies beside it.
        identity: What is being measured.
        restart: Throw away what an earlier run has kept.

    Attributes:
        path: The file.
        kept: What it holds.

    Raises:
        ProfileError: The file is damaged, or of something else.
    """

    def __init__(self, profile: Path, identity: RunIdentity, *, restart: bool = False) -> None:
        self.path = profile.with_name(profile.stem + PARTIAL)
        self.kept: dict[Point, Measurement] = {}
        self._identity = identity
        if restart:
            self.path.unlink(missing_ok=True)
        if self.path.exists():
            self._read()

    def add(self, measurement: Measurement) -> None:
        """Keep one for good: it is on the disk when this returns."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append(self._identity)
        self._append(measurement)
        self.kept[measurement.point] = measurement

    def finish(self) -> None:
        """All has been measured: the file gets its final name, and the next run starts anew."""
        path = self.path.with_name(self.path.name.removesuffix(PARTIAL) + WHOLE)
        self.path.replace(path)
        self.path = path

    def _append(self, line: msgspec.Struct) -> None:
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> None:
        text = self.path.read_bytes()
        whole, torn = text[: text.rfind(b"\n") + 1], text[text.rfind(b"\n") + 1 :]
        lines = whole.splitlines()
        if lines:
            self._check_identity(lines[0])
        for number, line in enumerate(lines[1:], start=2):
            measurement = self._decode(number, line)
            self.kept[measurement.point] = measurement
        if torn:  # a run was killed as it wrote its last line, which is measured again
            self.path.write_bytes(whole)
        if not lines:
            self.path.unlink()

    def _check_identity(self, line: bytes) -> None:
        try:
            found: object = msgspec.json.decode(line)
        except msgspec.DecodeError:
            found = None
        if found != msgspec.json.decode(msgspec.json.encode(self._identity)):
            raise ProfileError(
                "holds measurements of another plan, model or device",
                field=str(self.path),
                expected="those of this command; --restart throws them away",
            )

    def _decode(self, number: int, line: bytes) -> Measurement:
        try:
            return msgspec.json.decode(line, type=Measurement)
        except msgspec.DecodeError as error:
            raise ProfileError(
                f"is damaged: {error}",
                field=f"{self.path}:{number}",
                expected="a measurement; --restart throws them all away",
            ) from error
