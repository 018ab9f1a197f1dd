"""`festina launch --ray`: a scheduler here, agents on the machines of a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console

from festina.cli.options import (
    ConfigFile,
    Deploy,
    EndpointOption,
    LogFormat,
    SetFlags,
    settings,
)
from festina.config import Config, LogConfig
from festina.errors import ConfigError, EngineError
from festina.log import logger, logging_to_stderr, tell
from festina.runtime.child import Child
from festina.runtime.worker import Task

LOG = logger("launch")
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
    log_format: LogFormat = None,
) -> None:
    """Start a scheduler here and one agent per device of a Ray cluster; serve until told to stop.

    Ray places the agents and starts them again when they die; it never carries tokens. Machines
    other than this one need keys (docs/security.md). What agents log is in Ray's logs.
    """
    found = settings(config, sets, deploy=deploy, endpoint=endpoint, log_format=log_format).config
    if not found.deployments:
        raise ConfigError(
            "there is nothing to serve",
            field="deployments",
            expected="--deploy NAME=WEIGHTS, or deployments in the settings file",
        )
    told = _Told(found.log)
    with logging_to_stderr(found.log, "launch"):
        scheduler = Child("scheduler", Task(found))
        try:
            listens_at = scheduler.endpoint(time.monotonic() + START_TIMEOUT_S)
            print(listens_at, flush=True)
            _serve(found, scheduler, listens_at, ray, device, per_machine, told)
        except KeyboardInterrupt:
            told.stopped()
        finally:
            scheduler.stop()
            scheduler.finish(time.monotonic() + STOP_TIMEOUT_S)


class _Told:
    """What `festina launch` itself says on stderr: for people, or as the log has it.

    Args:
        config: Of the log.
    """

    def __init__(self, config: LogConfig) -> None:
        quiet = config.format != "off"
        self._console = Console(stderr=True, highlight=False, quiet=quiet)

    def serving(self, agents: Iterable[str]) -> None:
        """Everything has started."""
        self._console.print(f"serving on {', '.join(agents)}; Ctrl-C stops")
        tell(LOG, "serving", {})

    def restart(self, agent: str) -> None:
        """An agent has died, and Ray has started it again."""
        self._console.print(f"{agent} ended and was started again")
        tell(LOG, "process ended", {"agent": agent})

    def stopped(self) -> None:
        """The end."""
        self._console.print("stopped")
        tell(LOG, "stopped", {})


def _serve(
    config: Config,
    scheduler: Child,
    endpoint: str,
    address: str,
    device: str,
    per_machine: int,
    told: _Told,
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
            told.serving(agents.names)
            for name in agents.restarts():
                if name:
                    told.restart(name)
                if scheduler.exit_code is not None:
                    raise EngineError(f"the scheduler ended with status {scheduler.exit_code}")
    finally:
        ray.shutdown()
