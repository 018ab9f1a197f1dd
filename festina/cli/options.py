"""Options that several commands share, and how they become settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from festina.config_load import Settings, load
from festina.errors import ConfigError

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file (YAML).", show_default=False)
]
SetFlags = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Set any setting; repeatable."),
]
Gpus = Annotated[
    str | None,
    typer.Option(
        "--gpus", help="Devices: cpu:N, sim:KIND:N, cuda:ORDINAL or cuda:all.", show_default=False
    ),
]
Deploy = Annotated[
    list[str] | None,
    typer.Option(
        "--deploy",
        metavar="NAME=WEIGHTS[,ttft_ms=…,tbt_ms=…,pace=…]",
        help="Serve a model under a name with its objectives; repeatable.",
    ),
]
EndpointOption = Annotated[
    str | None,
    typer.Option("--endpoint", help="Scheduler's endpoint.", show_default=False),
]
Http = Annotated[
    str | None,
    typer.Option(
        "--http", metavar="HOST:PORT", help="Serve OpenAI's HTTP API too.", show_default=False
    ),
]
HttpKeys = Annotated[
    Path | None,
    typer.Option("--http-keys", help="File of API keys, one a line.", show_default=False),
]
TraceFileOption = Annotated[
    Path | None,
    typer.Option(
        "--trace", help="Write requests and GPUs for ui.perfetto.dev here.", show_default=False
    ),
]
LogFormat = Annotated[
    str | None,
    typer.Option(
        "--log-format", metavar="json|text|off", help="Log to stderr.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def settings(
    config: Path | None,
    sets: list[str] | None,
    *,
    gpus: str | None = None,
    deploy: list[str] | None = None,
    endpoint: str | None = None,
    http: str | None = None,
    http_keys: Path | None = None,
    trace: Path | None = None,
    log_format: str | None = None,
) -> Settings:
    """Settings from the file, the environment and these flags; None is a flag not given.

    Raises:
        ConfigError: As `festina.config_load.load`, or `--set` is not PATH=VALUE.
    """
    flags: dict[str, object] = {}
    for item in sets or ():
        path, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"cannot read {item!r}", field="--set", expected="PATH=VALUE")
        flags[path.strip()] = value
    named = {
        "gpus": gpus,
        "deployments": deploy or None,
        "scheduler.endpoint": endpoint,
        "gateway.http": http,
        "gateway.keys_file": None if http_keys is None else str(http_keys),
        "trace.file": None if trace is None else str(trace.absolute()),
        "log.format": log_format,
    }
    flags.update({path: value for path, value in named.items() if value is not None})
    return load(config, os.environ, flags)
