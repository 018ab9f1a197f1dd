"""Which devices to serve on, as people write it: `cpu:2`, `sim:8`, `sim:H100-SXM5-80GB:8`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from festina.errors import ConfigError

DEVICES_MAX = 64
"""Devices of one specification: each is a process."""

_ITEM = re.compile(r"(?P<kind>cpu|sim)(:(?P<model>[A-Za-z][A-Za-z0-9.-]*))?(:(?P<count>[0-9]+))?")


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One device.

    Attributes:
        name: Name of its agent, unique in the specification, such as "cpu0".
        gpu: What the agent opens: "cpu", "sim" or "sim:KIND".
    """

    name: str
    gpu: str


def parse_gpus(text: str) -> tuple[GpuSpec, ...]:
    """The devices that `text` names.

    Raises:
        ConfigError: It has another form, or names too many devices.
    """
    gpus: list[GpuSpec] = []
    numbers: dict[str, int] = {}
    for item in text.split(","):
        match = _ITEM.fullmatch(item.strip())
        if match is None or (match["kind"] == "cpu" and match["model"]):
            raise ConfigError(
                f"{item.strip()!r} is not a device",
                field="gpus",
                expected="cpu:N, sim:N or sim:KIND:N, comma-separated",
            )
        count = int(match["count"] or 1)
        if not 1 <= count <= DEVICES_MAX - len(gpus):
            raise ConfigError(
                f"{item.strip()!r} asks for {count} devices",
                field="gpus",
                expected=f"1 to {DEVICES_MAX} devices in all",
            )
        kind = match["kind"]
        gpu = f"{kind}:{match['model']}" if match["model"] else kind
        for _ in range(count):
            number = numbers[kind] = numbers.get(kind, -1) + 1
            gpus.append(GpuSpec(f"{kind}{number}", gpu))
    return tuple(gpus)
