"""`festina launch --ray`: a scheduler here, agents on the machines of a Ray cluster."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Console

from festina.cli.options import ConfigFile, Deploy, EndpointOption, SetFlags, settings
from festina.config import Config
from festina.errors import ConfigError, EngineError
from festina.runtime.child import Child
from festina.runtime.worker import Task

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0


def command(
    ray: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="The Ray cluster: HOST:PORT, or auto for the local."),
    ],
    device: Annotated[
        str, typer.Option(help="cuda: every GPU that Ray knows; cpu, sim or sim:KIND.")
    ] = "cuda",
    per_machine: Annotated[
        int, typer.Option(min=1, max=64, help="Agents on each machine, for cpu and sim.")
    ] = 1,
    config: ConfigFile = None,
    sets: SetFlags = None,
    deploy: Deploy = None,
    endpoint: EndpointOption = None,
) -> None:
    """Start a scheduler here and one agent per device of a Ray cluster; serve until told to stop.

    Ray places the agents and starts them again when they die; it never carries tokens. Machines
    other than this one need keys (docs/security.md).
    """
    found = settings(config, sets, deploy=deploy, endpoint=endpoint).config
    if not found.deployments:
        raise ConfigError(
            "there is nothing to serve",
            field="deployments",
            expected="--deploy NAME=WEIGHTS, or deployments in the settings file",
        )
    console = Console(stderr=True, highlight=False)
    scheduler = Child("scheduler", Task(found))
    try:
        listens_at = scheduler.endpoint(time.monotonic() + START_TIMEOUT_S)
        print(listens_at, flush=True)
        _serve(found, scheduler, listens_at, ray, device, per_machine, console)
    except KeyboardInterrupt:
        console.print("stopped")
    finally:
        scheduler.stop()
        scheduler.finish(time.monotonic() + STOP_TIMEOUT_S)


def _serve(
    config: Config,
    scheduler: Child,
    endpoint: str,
    address: str,
    device: str,
    per_machine: int,
    console: Console,
) -> None:
    """Until Ctrl-C, or until the scheduler dies."""
    try:
        import ray

        from festina.runtime.ray_agents import RayAgents, machines, places
    except ImportError as error:
        raise ConfigError(
            f"Ray is not installed: {error}", field="--ray", expected="pip install 'festina[ray]'"
        ) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster at {address!r}: {error}", field="--ray", expected="HOST:PORT or auto"
        ) from error
    try:
        wanted = places(machines(), device, per_machine)
        with RayAgents(config, endpoint, wanted) as agents:
            console.print(f"serving on {', '.join(agents.names)}; Ctrl-C stops")
            for name in agents.restarts():
                if name:
                    console.print(f"{name} ended and was started again")
                if scheduler.exit_code is not None:
                    raise EngineError(f"the scheduler ended with status {scheduler.exit_code}")
    finally:
        ray.shutdown()
