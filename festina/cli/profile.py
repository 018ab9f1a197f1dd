"""`festina profile`: measure a model on a device, or model it where there is no device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from festina.device import physics
from festina.device.modelled_profile import modelled_head, modelled_rows
from festina.device.profile_file import write_profile
from festina.errors import ConfigError

SIMULATED = "sim:"

Device = Annotated[
    str,
    typer.Option(help="cpu: measure on this machine. sim:KIND: write what physics says of a GPU."),
]
Model = Annotated[str, typer.Option(help="A known model, a GGUF file, or a shape for sim:KIND.")]
Out = Annotated[Path, typer.Option(help="Folder of profiles.")]


def command(device: Device, model: Model, out: Out = Path("profiles")) -> None:
    """Write the profile of a model on a kind of device; planning reads it."""
    if device.startswith(SIMULATED):
        path = write_modelled(device.removeprefix(SIMULATED), model, out)
    else:
        raise ConfigError(f"cannot profile {device!r}", field="--device", expected="sim:KIND")
    print(path)


def write_modelled(kind: str, model: str, out: Path) -> Path:
    """Write the profile of a shape on a simulated GPU; the same words on every run."""
    gpu, shape = physics.gpu_named(kind), physics.model_named(model)
    return write_profile(out, modelled_head(gpu, shape), modelled_rows(gpu, shape))
