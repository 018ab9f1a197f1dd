"""What this installation is and what this machine has: the facts a bug report needs.

Nothing here fails on a machine that lacks something; what is absent is reported as absent.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import pynvml

import festina
from festina import _core

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
    """One NVIDIA device as its driver describes it."""

    name: str
    memory_bytes: int
    power_limit_w: float


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
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return CudaFacts(built, "", (), str(error))
    try:
        devices = tuple(_gpu_facts(index) for index in range(pynvml.nvmlDeviceGetCount()))
        return CudaFacts(built, pynvml.nvmlSystemGetDriverVersion(), devices, "")
    except pynvml.NVMLError as error:
        return CudaFacts(built, "", (), str(error))
    finally:
        pynvml.nvmlShutdown()


def _gpu_facts(index: int) -> GpuFacts:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return GpuFacts(
        name=pynvml.nvmlDeviceGetName(handle),
        memory_bytes=pynvml.nvmlDeviceGetMemoryInfo(handle).total,
        power_limit_w=pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3,
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
