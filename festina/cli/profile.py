"""`festina profile`: measure a model on a device, or model it where there is no device."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from festina.cli.options import ConfigFile, SetFlags, settings
from festina.config import Config
from festina.device import physics
from festina.device.cpu import CpuDevice
from festina.device.modelled_profile import modelled_head, modelled_rows
from festina.engine.cpu.engine import CpuEngine
from festina.engine.measured_profile import Origin, measure
from festina.engine.profiler import ProfilePlan
from festina.environment import describe
from festina.errors import ConfigError
from festina.profile_format import ModelInfo, ProfileRow, write_profile_file

SIMULATED = "sim:"

Device = Annotated[
    str,
    typer.Option(help="cpu: measure on this machine. sim:KIND: write what physics says of a GPU."),
]
Model = Annotated[str, typer.Option(help="A known model, a GGUF file, or a shape for sim:KIND.")]
Out = Annotated[Path, typer.Option(help="Folder of profiles.")]


def command(
    device: Device,
    model: Model,
    out: Out = Path("profiles"),
    config: ConfigFile = None,
    sets: SetFlags = None,
) -> None:
    """Write the profile of a model on a kind of device; planning reads it."""
    if device.startswith(SIMULATED):
        path = write_modelled(device.removeprefix(SIMULATED), model, out)
    elif device in {"cpu", "cpu:0"}:
        path = write_measured(settings(config, sets).config, model, out)
    else:
        raise ConfigError(
            f"cannot profile {device!r}", field="--device", expected="cpu or sim:KIND"
        )
    print(path)


def write_modelled(kind: str, model: str, out: Path) -> Path:
    """Write the profile of a shape on a simulated GPU; the same words on every run."""
    gpu, shape = physics.gpu_named(kind), physics.model_named(model)
    return _write(out, modelled_head(gpu, shape), modelled_rows(gpu, shape))


def write_measured(config: Config, weights: str, out: Path) -> Path:
    """Measure a model on one core of this machine.

    A step computes on the calling thread alone, so that the thread's CPU time is its duration on a
    core of its own, whatever else this machine does meanwhile.
    """
    models_dir = Path(config.models_dir) if config.models_dir else None
    name = Path(weights).stem if weights.endswith(".gguf") else weights
    head, rows = measure(
        CpuEngine(models_dir, clock=time.thread_time),
        CpuDevice(config.cpu_power, now=time.monotonic()),
        name,
        weights,
        ProfilePlan(),
        Origin(
            made_by=f"festina profile --device cpu --model {weights}",
            date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            machine=describe((), (), Path()).cpu.name,
        ),
        watch=_progress,
    )
    return _write(out, head, rows)


def _write(folder: Path, info: ModelInfo, rows: Iterable[ProfileRow]) -> Path:
    path = folder / info.device / f"{info.model}.csv"
    write_profile_file(path, info, rows)
    return path


def _progress(rows: Iterable[ProfileRow], count: int) -> Iterable[ProfileRow]:
    return track(rows, "measuring", total=count, console=Console(stderr=True))
