"""`festina top`: the cluster as its scheduler sees it, live."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from festina.cli.config import plain
from festina.cli.options import ConfigFile, EndpointOption, Json, SetFlags, settings
from festina.config import Config
from festina.messages import Cluster
from festina.report.tables import cluster_table, consolidation_lines
from festina.runtime.client import AsyncClient


def command(
    config: ConfigFile = None,
    sets: SetFlags = None,
    endpoint: EndpointOption = None,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and leave.")] = False,
    json: Json = False,
) -> None:
    """Per GPU: clock, SMs, batch, queue, KV cache, power, energy, models. Ctrl-C leaves.

    Below, what the consolidator does and why, and the joules it expected to save and saved.
    """
    found = settings(config, sets, endpoint=endpoint).config
    if json or once:
        cluster = asyncio.run(_look(found))
        if json:
            print(msgspec.json.encode(plain(cluster)).decode())
        else:
            Console(highlight=False).print(_shown(cluster))
        return
    try:
        asyncio.run(_watch(found, interval))
    except KeyboardInterrupt:
        return


def _shown(cluster: Cluster) -> Group:
    return Group(cluster_table(cluster), *map(Text, consolidation_lines(cluster.consolidation)))


async def _look(config: Config) -> Cluster:
    async with AsyncClient(
        config.scheduler.endpoint,
        standby_endpoint=config.scheduler.standby_endpoint,
        link=config.link,
        identity=config.security.identity,
    ) as client:
        return await client.cluster()


async def _watch(config: Config, interval_s: float) -> None:
    async with AsyncClient(
        config.scheduler.endpoint,
        standby_endpoint=config.scheduler.standby_endpoint,
        link=config.link,
        identity=config.security.identity,
    ) as client:
        first = _shown(await client.cluster())
        with Live(first, auto_refresh=False, screen=True) as live:
            while True:
                await asyncio.sleep(interval_s)
                live.update(_shown(await client.cluster()), refresh=True)
