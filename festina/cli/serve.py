"""`festina serve`: a cluster on this machine, alive until Ctrl-C or SIGTERM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace
from rich.console import Console

from festina.cli.options import (
    ConfigFile,
    Deploy,
    EndpointOption,
    Gpus,
    Http,
    HttpKeys,
    LogFormat,
    SetFlags,
    TraceFileOption,
    settings,
)
from festina.config import Config, LogConfig, TraceConfig
from festina.errors import ConfigError
from festina.gateway.address import checked_address
from festina.log import Fields, logger, logging_to_stderr, tell
from festina.runtime.supervisor import Cluster, Restart
from festina.runtime.trace.file import begin_trace, end_trace

LOG = logger("serve")


def command(
    config: ConfigFile = None,
    sets: SetFlags = None,
    gpus: Gpus = None,
    deploy: Deploy = None,
    endpoint: EndpointOption = None,
    http: Http = None,
    http_keys: HttpKeys = None,
    trace: TraceFileOption = None,
    log_format: LogFormat = None,
    standby: Annotated[
        bool, typer.Option("--standby", help="Run a second scheduler that can take over.")
    ] = False,
) -> None:
    """Start a scheduler and one agent per GPU; print the endpoint; serve until told to stop.

    With --http, a gateway too: the second line printed is its URL. With --standby, a second
    scheduler: the last line printed is its endpoint, for scheduler.standby_endpoint of clients.
    Processes that die are started again. What --trace writes can be opened in ui.perfetto.dev at
    any time; --log-format json tells events, never prompts or outputs.
    """
    found = settings(
        config,
        sets,
        gpus=gpus,
        deploy=deploy,
        endpoint=endpoint,
        http=http,
        http_keys=http_keys,
        trace=trace,
        log_format=log_format,
    ).config
    if not found.deployments:
        raise ConfigError(
            "there is nothing to serve",
            field="deployments",
            expected="--deploy NAME=WEIGHTS, or deployments in the settings file",
        )
    if found.gateway.http:
        checked_address(found.gateway)
    if standby:
        found = _with_standby(found)
    told = _Told(found.log)
    with logging_to_stderr(found.log, "serve"), _tracing(found.trace):
        try:
            _serve(found, told)
        except KeyboardInterrupt:
            told.stopped()


def _with_standby(config: Config) -> Config:
    """With a standby at the next port, unless the settings say where."""
    scheduler = config.scheduler
    if scheduler.standby_endpoint:
        return config
    host, _, port = scheduler.endpoint.rpartition(":")
    if not port.isdecimal():
        raise ConfigError(
            f"{scheduler.endpoint!r} is not an endpoint",
            field="scheduler.endpoint",
            expected="tcp://HOST:PORT",
        )
    standby = f"{host}:{int(port) + 1 if int(port) else 0}"
    return replace(config, scheduler=replace(scheduler, standby_endpoint=standby))


@contextmanager
def _tracing(config: TraceConfig) -> Iterator[None]:
    """Inside, all processes append to the trace.

    Raises:
        ConfigError: The file cannot be made.
    """
    if not config.file:
        yield
        return
    begin_trace(Path(config.file))
    try:
        yield
    finally:
        end_trace(Path(config.file))


def _serve(config: Config, told: _Told) -> None:
    """Run the cluster until Ctrl-C."""
    with Cluster(config) as cluster:
        print(cluster.endpoint, flush=True)
        if cluster.url:
            print(cluster.url, flush=True)
        if cluster.standby_endpoint:
            print(cluster.standby_endpoint, flush=True)
        told.serving(config)
        cluster.supervise(tell=told.restart)


class _Told:
    """What `festina serve` itself says on stderr: for people, or as the log has it.

    Args:
        config: Of the log.
    """

    def __init__(self, config: LogConfig) -> None:
        quiet = config.format != "off"
        self._console = Console(stderr=True, highlight=False, quiet=quiet)

    def serving(self, config: Config) -> None:
        """Everything has started."""
        names = ", ".join(deployment.name for deployment in config.deployments)
        self._console.print(f"serving {names} on {config.gpus}; Ctrl-C stops")
        tell(LOG, "serving", {"model": names, "device": config.gpus})

    def restart(self, restart: Restart) -> None:
        """A process has died."""
        death, pause_s = restart.death, restart.pause_s
        self._console.print(
            f"{death.name} ended with status {death.exit_code}; it starts again"
            + (f" in {pause_s:.1f} s" if pause_s else "")
        )
        fields: Fields = {"agent": death.name, "status": death.exit_code, "pause_s": pause_s}
        tell(LOG, "process ended", fields)

    def stopped(self) -> None:
        """The end."""
        self._console.print("stopped")
        tell(LOG, "stopped", {})
