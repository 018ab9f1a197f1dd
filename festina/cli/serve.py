"""`festina serve`: a cluster on this machine, alive until Ctrl-C or SIGTERM."""

from __future__ import annotations

from rich.console import Console

from festina.cli.options import ConfigFile, Deploy, EndpointOption, Gpus, SetFlags, settings
from festina.errors import ConfigError
from festina.runtime.supervisor import Cluster


def command(
    config: ConfigFile = None,
    sets: SetFlags = None,
    gpus: Gpus = None,
    deploy: Deploy = None,
    endpoint: EndpointOption = None,
) -> None:
    """Start a scheduler and one agent per GPU; print the endpoint; serve until told to stop."""
    found = settings(config, sets, gpus=gpus, deploy=deploy, endpoint=endpoint).config
    if not found.deployments:
        raise ConfigError(
            "there is nothing to serve",
            field="deployments",
            expected="--deploy NAME=WEIGHTS, or deployments in the settings file",
        )
    console = Console(stderr=True, highlight=False)
    with Cluster(found) as cluster:
        names = ", ".join(deployment.name for deployment in found.deployments)
        print(cluster.endpoint, flush=True)
        console.print(f"serving {names} on {found.gpus}; Ctrl-C stops")
        try:
            cluster.wait()
        except KeyboardInterrupt:
            console.print("stopping")
