"""`festina models`: the weights that are known by name, and those that are here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from festina.cli.options import ConfigFile, Json, SetFlags, settings
from festina.config import Config
from festina.engine.models import KNOWN, default_cache_dir, pull

app = typer.Typer(help="Weights that are known by name.", no_args_is_help=True)


@app.command("list")
def list_models(config: ConfigFile = None, sets: SetFlags = None, json: Json = False) -> None:
    """Known models, their licences, and whether they are here."""
    folder = cache_dir(settings(config, sets).config)
    rows = [
        {
            "name": model.name,
            "description": model.description,
            "licence": model.licence,
            "size_bytes": model.size_bytes,
            "path": str(model.path(folder)) if model.path(folder).is_file() else "",
        }
        for model in KNOWN.values()
    ]
    if json:
        print(msgspec.json.encode(rows).decode())
        return
    table = Table("name", "description", "licence", "MB", "here")
    for model in KNOWN.values():
        here = "yes" if model.path(folder).is_file() else "no"
        megabytes = f"{model.size_bytes / 1e6:.0f}"
        table.add_row(model.name, model.description, model.licence, megabytes, here)
    Console().print(table)


@app.command("pull")
def pull_model(
    name: Annotated[str, typer.Argument(help="As `festina models list` has it.")],
    config: ConfigFile = None,
    sets: SetFlags = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You have read and accept its licence.")
    ] = False,
) -> None:
    """Fetch weights into the cache folder and check their SHA-256; print the file."""
    folder = cache_dir(settings(config, sets).config)
    console = Console(stderr=True, highlight=False)
    print(fetch(name, folder, console, accept_licence=accept_licence))


def fetch(name: str, folder: Path, console: Console, *, accept_licence: bool = False) -> Path:
    """The weights file of a known model, fetched if it is not there; says what happens.

    Raises:
        FestinaError: As `festina.engine.models.pull`.
    """
    with console.status(name) as status:
        tell: Callable[[str], None] = status.update if console.is_terminal else console.print
        return pull(name, folder, accept_licence=accept_licence, progress=tell)


def cache_dir(config: Config) -> Path:
    """Where weights are kept."""
    return Path(config.models_dir) if config.models_dir else default_cache_dir()


def cached(folder: Path) -> tuple[str, ...]:
    """Names of the known models whose weights are in `folder`."""
    return tuple(model.name for model in KNOWN.values() if model.path(folder).is_file())
