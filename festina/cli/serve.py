"""`festina serve`: a cluster on this machine, alive until Ctrl-C or SIGTERM."""

from __future__ import annotations

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
from festina.errors import ConfigError, EngineError
from festina.gateway.address import checked_address
from festina.runtime.supervisor import Cluster, Death


def command(
    config: ConfigFile = None,
    sets: SetFlags = None,
    gpus: Gpus = None,
    deploy: Deploy = None,
    endpoint: EndpointOption = None,
    http: Http = None,
    http_keys: HttpKeys = None,
) -> None:
    """Start a scheduler and one agent per GPU; print the endpoint; serve until told to stop.

    With --http, a gateway too: the second line printed is its URL.
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
    console = Console(stderr=True, highlight=False)
    try:
        deaths = _serve(found, console)
    except KeyboardInterrupt:
        console.print("stopped")
        return
    names = ", ".join(f"{death.name} (status {death.exit_code})" for death in deaths)
    raise EngineError(f"the cluster ended because {names} did")


def _serve(config: Config, console: Console) -> tuple[Death, ...]:
    """Run the cluster until Ctrl-C, or until one of its processes dies."""
    with Cluster(config) as cluster:
        print(cluster.endpoint, flush=True)
        if cluster.url:
            print(cluster.url, flush=True)
        names = ", ".join(deployment.name for deployment in config.deployments)
        console.print(f"serving {names} on {config.gpus}; Ctrl-C stops")
        return cluster.wait()
