"""`festina profile`: measure a model on a device, or model it where there is no device."""

from __future__ import annotations

import datetime
import re
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from festina.cli.options import ConfigFile, SetFlags, settings
from festina.cli.profile_gpu import Ask, progress, write_gpu_profile
from festina.config import Config
from festina.device import physics
from festina.device.cpu import CpuDevice
from festina.device.modelled_profile import modelled_head, modelled_rows
from festina.engine.cpu.engine import CpuEngine
from festina.engine.measured_profile import Keeping, Origin, Subject, measure
from festina.engine.measurements import MeasurementStore, RunIdentity
from festina.engine.profile_plan import ProfilePlan
from festina.engine.weights_name import profile_name
from festina.environment import describe
from festina.errors import ConfigError
from festina.profile_format import write_profile_file

SIMULATED = "sim:"
INTERRUPTED = 130
_CUDA = re.compile(r"cuda:[0-9]{1,4}")

Device = Annotated[
    str,
    typer.Option(
        help="cpu or cuda:N: measure on this machine. sim:KIND: write what physics says of a GPU."
    ),
]
Model = Annotated[
    str, typer.Option(help="A known model, a file of weights, or a shape for cuda:N and sim:KIND.")
]
Out = Annotated[Path, typer.Option(help="Folder of profiles.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="cuda:N: at most 6 minutes, with fewer points.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Measure again what an interrupted run has measured.")
]


def command(
    device: Device,
    model: Model,
    out: Out = Path("profiles"),
    quick: Quick = False,
    restart: Restart = False,
    config: ConfigFile = None,
    sets: SetFlags = None,
) -> None:
    """Write the profile of a model on a kind of device; planning reads it."""
    found = settings(config, sets).config
    try:
        if device.startswith(SIMULATED):
            path = write_modelled(device.removeprefix(SIMULATED), model, out)
        elif device in {"cpu", "cpu:0"}:
            path = write_measured(found, model, out, restart=restart)
        elif _CUDA.fullmatch(device):
            path = write_gpu_profile(found, Ask(device, model, out, quick, restart))
        else:
            raise ConfigError(
                f"cannot profile {device!r}", field="--device", expected="cpu, cuda:N or sim:KIND"
            )
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted: the same command goes on where it stopped")
        raise typer.Exit(INTERRUPTED) from None
    print(path)


def write_modelled(kind: str, model: str, out: Path) -> Path:
    """Write the profile of a shape on a simulated GPU; the same words on every run."""
    gpu, shape = physics.gpu_named(kind), physics.model_named(model)
    path = out / gpu.kind / f"{shape.name}.csv"
    write_profile_file(path, modelled_head(gpu, shape), modelled_rows(gpu, shape))
    return path


def write_measured(config: Config, weights: str, out: Path, *, restart: bool = False) -> Path:
    """Measure a model on one core of this machine.

    A step computes on the calling thread alone, so that the thread's CPU time is its duration on a
    core of its own, whatever else this machine does meanwhile.
    """
    models_dir = Path(config.models_dir) if config.models_dir else None
    device, plan = CpuDevice(config.cpu_power, now=time.monotonic()), ProfilePlan()
    model = profile_name(weights)
    path = out / device.kind / f"{model}.csv"
    identity = RunIdentity(device.kind, model, weights, plan)
    store = MeasurementStore(path, identity, restart=restart)
    console = Console(stderr=True)
    origin = Origin(
        made_by=f"festina profile --device cpu --model {weights}",
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        machine=describe((), (), Path()).cpu.name,
    )
    measured = measure(
        CpuEngine(models_dir, clock=time.thread_time),
        device,
        Subject(model, weights, plan, origin),
        Keeping(store, lambda found, total, kept: progress(found, total, kept, console)),
    )
    write_profile_file(path, measured.info, (one.row() for one in measured.measurements))
    store.finish()
    return path
