"""`festina scheduler` and `festina agent`: single processes, to build a cluster by hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Annotated

import typer

from festina.cli.options import ConfigFile, Deploy, EndpointOption, LogFormat, SetFlags, settings
from festina.config import Config
from festina.errors import ConfigError
from festina.log import logging_to_stderr
from festina.runtime import agent as agent_process
from festina.runtime import consolidator as consolidator_process
from festina.runtime import scheduler as scheduler_process


def scheduler(
    config: ConfigFile = None,
    sets: SetFlags = None,
    log_format: LogFormat = None,
    deploy: Deploy = None,
    endpoint: EndpointOption = None,
    standby: Annotated[
        bool, typer.Option("--standby", help="Be the one at scheduler.standby_endpoint.")
    ] = False,
) -> None:
    """Run the global scheduler alone; print its endpoint. Agents join it by that.

    Two of them, one with --standby, share settings in which scheduler.standby_endpoint is set; so
    do agents and clients. The second takes over when the first is gone.
    """
    found = settings(config, sets, deploy=deploy, endpoint=endpoint, log_format=log_format).config
    if standby and not found.scheduler.standby_endpoint:
        raise ConfigError(
            "a standby of which nobody knows",
            field="scheduler.standby_endpoint",
            expected="tcp://HOST:PORT",
        )
    _until_ctrl_c(
        found,
        "scheduler",
        lambda stop: scheduler_process.run(found, _announce, stop, standby=standby),
    )


def agent(
    join: Annotated[str, typer.Option(help="The scheduler's endpoint.")],
    config: ConfigFile = None,
    sets: SetFlags = None,
    log_format: LogFormat = None,
    gpu: Annotated[str, typer.Option(help="cpu, sim, sim:KIND or cuda:ORDINAL.")] = "cpu",
    name: Annotated[str, typer.Option(help="Unique in the cluster.")] = "agent0",
    deploy: Deploy = None,
) -> None:
    """Run one agent alone; print where clients reach it. Deployments as the scheduler's."""
    found = settings(config, sets, deploy=deploy, log_format=log_format).config
    _until_ctrl_c(
        found, name, lambda stop: agent_process.run(found, name, gpu, join, _announce, stop)
    )


def consolidator(
    join: Annotated[str, typer.Option(help="The scheduler's endpoint.")],
    config: ConfigFile = None,
    sets: SetFlags = None,
    log_format: LogFormat = None,
    deploy: Deploy = None,
) -> None:
    """Run the consolidator alone: it empties, parks and wakes GPUs. Deployments as the scheduler's.

    One for a cluster. It needs nothing but the cluster, and nothing needs it.
    """
    found = settings(config, sets, deploy=deploy, log_format=log_format).config
    if found.consolidator.policy == "off":
        raise ConfigError(
            "there is nothing to do", field="consolidator.policy", expected="festina or paper"
        )
    _until_ctrl_c(
        found, "consolidator", lambda stop: consolidator_process.run(found, join, _announce, stop)
    )


def _announce(endpoint: str) -> None:
    print(endpoint, flush=True)


def _until_ctrl_c(config: Config, name: str, run: Callable[[threading.Event], None]) -> None:
    """Call `run`; Ctrl-C and SIGTERM set its stop event instead of tearing it apart."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        with logging_to_stderr(config.log, name):
            run(stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
