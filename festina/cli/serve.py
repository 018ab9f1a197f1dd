"""`festina serve`: a cluster on this machine, alive until Ctrl-C or SIGTERM."""

from __future__ import annotations

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
    SetFlags,
    settings,
)
from festina.config import Config
from festina.errors import ConfigError
from festina.gateway.address import checked_address
from festina.runtime.supervisor import Cluster, Restart


def command(
    config: ConfigFile = None,
    sets: SetFlags = None,
    gpus: Gpus = None,
    deploy: Deploy = None,
    endpoint: EndpointOption = None,
    http: Http = None,
    http_keys: HttpKeys = None,
    standby: Annotated[
        bool, typer.Option("--standby", help="Run a second scheduler that can take over.")
    ] = False,
) -> None:
    """Start a scheduler and one agent per GPU; print the endpoint; serve until told to stop.

    With --http, a gateway too: the second line printed is its URL. With --standby, a second
    scheduler: the last line printed is its endpoint, for scheduler.standby_endpoint of clients.
    Processes that die are started again.
    """
    found = settings(
        config,
        sets,
        gpus=gpus,
        deploy=deploy,
        endpoint=endpoint,
        http=http,
        http_keys=http_keys,
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
    console = Console(stderr=True, highlight=False)
    try:
        _serve(found, console)
    except KeyboardInterrupt:
        console.print("stopped")


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


def _serve(config: Config, console: Console) -> None:
    """Run the cluster until Ctrl-C."""

    def tell(restart: Restart) -> None:
        death = restart.death
        console.print(
            f"{death.name} ended with status {death.exit_code}; it starts again"
            + (f" in {restart.pause_s:.1f} s" if restart.pause_s else "")
        )

    with Cluster(config) as cluster:
        print(cluster.endpoint, flush=True)
        if cluster.url:
            print(cluster.url, flush=True)
        if cluster.standby_endpoint:
            print(cluster.standby_endpoint, flush=True)
        names = ", ".join(deployment.name for deployment in config.deployments)
        console.print(f"serving {names} on {config.gpus}; Ctrl-C stops")
        cluster.supervise(tell=tell)
