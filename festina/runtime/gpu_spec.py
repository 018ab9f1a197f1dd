"""Which devices to serve on, as people write it: `cpu:2`, `sim:H100-SXM5-80GB:8`, `cuda:0`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from festina.device.nvidia.opening import cuda_device_count
from festina.errors import ConfigError

DEVICES_MAX = 64
"""Devices of one specification: each is a process."""

_ITEM = re.compile(r"(?P<kind>cpu|sim)(:(?P<model>[A-Za-z][A-Za-z0-9.-]*))?(:(?P<count>[0-9]+))?")
_CUDA = re.compile(r"cuda:(?P<ordinal>all|[0-9]{1,4})")
_EXPECTED = "cpu:N, sim:N, sim:KIND:N, cuda:ORDINAL or cuda:all, comma-separated"


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One device.

    Attributes:
        name: Name of its agent, unique in the specification, such as "cpu0".
        gpu: What the agent opens: "cpu", "sim", "sim:KIND" or "cuda:ORDINAL".
    """

    name: str
    gpu: str


def parse_gpus(
    text: str, cuda_devices: Callable[[], int] = cuda_device_count
) -> tuple[GpuSpec, ...]:
    """The devices that `text` names.

    Args:
        text: Comma-separated: `cpu:N`, `sim:N`, `sim:KIND:N`, `cuda:ORDINAL` or `cuda:all`.
        cuda_devices: How many GPUs CUDA sees; asked only if `text` names one.

    Raises:
        ConfigError: It has another form, names a device twice, or too many or absent ones.
        DeviceError: It names a GPU, and there is no CUDA driver.
    """
    gpus: list[GpuSpec] = []
    numbers: dict[str, int] = {}
    for item in text.split(","):
        wanted = _gpus_of(item.strip(), cuda_devices)
        if not 1 <= len(wanted) <= DEVICES_MAX - len(gpus):
            raise ConfigError(
                f"{item.strip()!r} asks for {len(wanted)} devices",
                field="gpus",
                expected=f"1 to {DEVICES_MAX} devices in all",
            )
        for gpu in wanted:
            kind, _, which = gpu.partition(":")
            number = numbers[kind] = numbers.get(kind, -1) + 1
            gpus.append(GpuSpec(f"cuda{which}" if kind == "cuda" else f"{kind}{number}", gpu))
    names = [gpu.name for gpu in gpus]
    if len(set(names)) < len(names):
        raise ConfigError(f"{text!r} names a GPU twice", field="gpus", expected="each GPU once")
    return tuple(gpus)


def _gpus_of(item: str, cuda_devices: Callable[[], int]) -> list[str]:
    """`GpuSpec.gpu` of each device of one item; may be longer than allowed by one."""
    if cuda := _CUDA.fullmatch(item):
        return _cuda_gpus(cuda["ordinal"], cuda_devices())
    match = _ITEM.fullmatch(item)
    if match is None or (match["kind"] == "cpu" and match["model"]):
        raise ConfigError(f"{item!r} is not a device", field="gpus", expected=_EXPECTED)
    kind = match["kind"]
    gpu = f"{kind}:{match['model']}" if match["model"] else kind
    return [gpu] * min(int(match["count"] or 1), DEVICES_MAX + 1)


def _cuda_gpus(ordinal: str, count: int) -> list[str]:
    if ordinal == "all":
        return [f"cuda:{number}" for number in range(count)]
    if int(ordinal) >= count:
        raise ConfigError(
            f"no GPU cuda:{ordinal} among the {count} that CUDA sees",
            field="gpus",
            expected=f"an ordinal below {count}",
        )
    return [f"cuda:{int(ordinal)}"]
