"""`festina env`: the facts a bug report needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from festina.cli.models import cache_dir, cached
from festina.cli.options import ConfigFile, Json, SetFlags, settings
from festina.control.profile import shipped_profiles
from festina.environment import CudaFacts, Environment, GpuFacts, describe


def command(config: ConfigFile = None, sets: SetFlags = None, json: Json = False) -> None:
    """Show what is installed, what was built, and what this machine has."""
    found = settings(config, sets).config
    folder = Path(found.profiles) if found.profiles else shipped_profiles()
    profiles = tuple(
        str(path.relative_to(folder).with_suffix("")) for path in sorted(folder.rglob("*.csv"))
    )
    models_dir = cache_dir(found)
    environment = describe(profiles, cached(models_dir), models_dir)
    if json:
        print(msgspec.json.format(msgspec.json.encode(environment)).decode())
        return
    for title, text in _lines(environment):
        print(f"{title:<10} {text}")


def _lines(environment: Environment) -> Iterator[tuple[str, str]]:
    cpu, gib = environment.cpu, 2**30
    yield "festina", environment.festina
    yield "python", environment.python
    yield "system", environment.system
    yield "cpu", f"{cpu.name}, {cpu.cores} cores, {cpu.memory_bytes / gib:.1f} GiB"
    yield "isa", " ".join(cpu.isa) or "none of the known extensions"
    yield "native", ", ".join(f"{key} {value}" for key, value in environment.native.items())
    yield "cuda", _cuda_line(environment.cuda)
    for device in environment.cuda.devices:
        yield "", _gpu_line(device)
    for name, version in environment.packages.items():
        yield name, version or "not installed"
    yield "profiles", ", ".join(environment.profiles) or "none"
    yield "models", f"{', '.join(environment.models) or 'none'} in {environment.models_dir}"


def _cuda_line(cuda: CudaFacts) -> str:
    built = "built with CUDA" if cuda.built else "built without CUDA"
    driver = f"driver {cuda.driver}" if cuda.driver else f"no driver ({cuda.why_none})"
    return f"{built}, {driver}, {len(cuda.devices)} devices"


def _gpu_line(gpu: GpuFacts) -> str:
    parts = [gpu.name, f"{gpu.memory_bytes / 2**30:.0f} GiB"]
    if gpu.power_w is not None:
        limit = "" if gpu.power_limit_w is None else f" of {gpu.power_limit_w:g}"
        parts.append(f"{gpu.power_w:.0f}{limit} W")
    if gpu.clock_mhz is not None:
        parts.append(f"{gpu.clock_mhz} MHz")
    if gpu.clocks_mhz is not None:
        parts.append(f"clocks {gpu.clocks_mhz[0]}-{gpu.clocks_mhz[1]} MHz")
    if gpu.temperature_c is not None:
        parts.append(f"{gpu.temperature_c} °C")
    if gpu.throttle:
        parts.append(f"held by {', '.join(gpu.throttle)}")
    return ", ".join(parts)
