"""What this installation is and what this machine has: the facts a bug report needs.

Nothing here fails on a machine that lacks something; what is absent is reported as absent.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import msgspec

import festina
from festina import _core
from festina.device.nvidia.nvml import Gpu, Nvml
from festina.errors import DeviceError, DeviceUnsupportedError

Fact = TypeVar("Fact")

PACKAGES = (
    "numpy",
    "msgspec",
    "pyzmq",
    "tokenizers",
    "gguf",
    "nvidia-ml-py",
    "cupy-cuda13x",
    "torch",
)
ISA_FLAGS = (
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512vnni",
    "avx512_bf16",
    "amx_int8",
    "asimd",
)


class CpuFacts(msgspec.Struct, frozen=True):
    """The processor.

    Attributes:
        name: As the kernel names it.
        cores: Cores this process may use.
        isa: Those of `ISA_FLAGS` that it has.
        memory_bytes: Physical memory; 0 where unknown.
    """

    name: str
    cores: int
    isa: tuple[str, ...]
    memory_bytes: int


class GpuFacts(msgspec.Struct, frozen=True):
    """One NVIDIA device as NVML describes it. What it cannot tell is None.

    Attributes:
        name: Its name.
        uuid: Its identity.
        memory_bytes: All of its memory.
        power_limit_w: The cap in force.
        power_w: Board power now.
        temperature_c: Temperature of the chip.
        clock_mhz: SM clock now.
        clocks_mhz: Lowest and highest SM clock. Whether this process may set them, only trying
            tells, which is left to an agent.
        throttle: Why the clock is not higher.
    """

    name: str
    uuid: str
    memory_bytes: int
    power_limit_w: float | None
    power_w: float | None
    temperature_c: int | None
    clock_mhz: int | None
    clocks_mhz: tuple[int, int] | None
    throttle: tuple[str, ...] | None


class CudaFacts(msgspec.Struct, frozen=True):
    """The CUDA side.

    Attributes:
        built: Whether the native module has its CUDA parts.
        driver: Driver version, or "" without a driver.
        devices: What the driver sees.
        why_none: Why there are no devices, or "".
    """

    built: bool
    driver: str
    devices: tuple[GpuFacts, ...]
    why_none: str


class Environment(msgspec.Struct, frozen=True):
    """Everything `festina env` shows.

    Attributes:
        festina: Version.
        python: Interpreter and version.
        system: Operating system and architecture.
        packages: Distribution → version, "" where it is not installed.
        native: `festina._core.build_info()`.
        cpu: The processor.
        cuda: The CUDA side.
        profiles: Names of the profiles in the profiles folder.
        models: Names of models whose weights are in the cache.
        models_dir: The cache folder.
    """

    festina: str
    python: str
    system: str
    packages: Mapping[str, str]
    native: Mapping[str, object]
    cpu: CpuFacts
    cuda: CudaFacts
    profiles: tuple[str, ...]
    models: tuple[str, ...]
    models_dir: str


def describe(profiles: tuple[str, ...], models: tuple[str, ...], models_dir: Path) -> Environment:
    """Look at this installation and machine.

    Args:
        profiles: Names of the profiles found.
        models: Names of the cached models.
        models_dir: Where they are.
    """
    native = dict(_core.build_info())
    return Environment(
        festina=festina.__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages={name: _version(name) for name in PACKAGES},
        native=native,
        cpu=cpu_facts(_read(Path("/proc/cpuinfo")), _read(Path("/proc/meminfo"))),
        cuda=_cuda_facts(built=bool(native["cuda"])),
        profiles=profiles,
        models=models,
        models_dir=str(models_dir),
    )


def cpu_facts(cpuinfo: str, meminfo: str) -> CpuFacts:
    """The processor from the text of `/proc/cpuinfo` and `/proc/meminfo` ("" elsewhere)."""
    fields: dict[str, str] = {}
    for line in (cpuinfo + "\n" + meminfo).splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return CpuFacts(
        name=fields.get("model name", platform.processor() or "unknown"),
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        isa=tuple(flag for flag in ISA_FLAGS if flag in flags),
        memory_bytes=1024 * int(fields.get("MemTotal", "0 kB").split()[0]),
    )


def _cuda_facts(*, built: bool) -> CudaFacts:
    try:
        with Nvml() as nvml:
            devices = tuple(gpu_facts(gpu) for gpu in nvml.gpus())
            return CudaFacts(built, nvml.driver_version(), devices, "")
    except DeviceError as error:
        return CudaFacts(built, "", (), error.message)


def gpu_facts(gpu: Gpu) -> GpuFacts:
    """Ask a GPU about itself.

    Raises:
        DeviceError: It is lost.
    """
    clocks_mhz = _told(gpu.supported_clocks_mhz)
    return GpuFacts(
        name=gpu.name(),
        uuid=gpu.uuid(),
        memory_bytes=gpu.memory_bytes(),
        power_limit_w=_told(gpu.power_limit_w),
        power_w=_told(gpu.power_w),
        temperature_c=_told(gpu.temperature_c),
        clock_mhz=_told(gpu.clock_mhz),
        clocks_mhz=(clocks_mhz[0], clocks_mhz[-1]) if clocks_mhz else None,
        throttle=_told(gpu.throttle_reasons),
    )


def _told(ask: Callable[[], Fact]) -> Fact | None:
    try:
        return ask()
    except DeviceUnsupportedError:
        return None


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
