"""The gateway process: an HTTP server around one client of the cluster."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from socket import socket
from threading import Event

import uvicorn
import uvloop

from festina.config import Config, TraceConfig
from festina.gateway.address import Address, checked_address, listen
from festina.gateway.app import build_app
from festina.gateway.keys import ApiKeys, read_keys
from festina.gateway.protocol import BoundedProtocol
from festina.gateway.watch import LOG, GatewayWatch
from festina.log import warn
from festina.runtime.client import AsyncClient
from festina.runtime.protocol.client_effects import ClientLimits
from festina.runtime.trace.file import TraceFile

CONNECTIONS_MAX = 4096
KEEP_ALIVE_S = 30
DRAIN_S = 2
"""How long streams may go on when the process is told to end; then they are cancelled."""
STOP_POLL_S = 0.05


def run(
    config: Config, scheduler_endpoint: str, announce: Callable[[str], None], stop: Event
) -> None:
    """Serve until `stop` is set. Blocks.

    Args:
        config: Settings.
        scheduler_endpoint: The cluster.
        announce: Called once with the URL, when it accepts clients.
        stop: Ends the gateway.

    Raises:
        ConfigError: The address or the keys are not usable.
    """
    address = checked_address(config.gateway)
    keys = read_keys(config.gateway.keys_file)
    with listen(address) as listener, _watch_of(config.trace) as watch:
        bound = replace(address, port=listener.getsockname()[1])
        uvloop.run(_serve(config, scheduler_endpoint, keys, listener, bound, announce, watch, stop))


@contextmanager
def _watch_of(config: TraceConfig) -> Iterator[GatewayWatch]:
    if not config.file:
        yield GatewayWatch()
        return
    with closing(TraceFile(Path(config.file), config.bytes_max, partial(warn, LOG))) as file:
        yield GatewayWatch(file.add)


async def _serve(
    config: Config,
    scheduler_endpoint: str,
    keys: ApiKeys,
    listener: socket,
    address: Address,
    announce: Callable[[str], None],
    watch: GatewayWatch,
    stop: Event,
) -> None:
    limits = ClientLimits(requests_max=config.gateway.requests_max)
    async with AsyncClient(
        scheduler_endpoint,
        standby_endpoint=config.scheduler.standby_endpoint,
        link=config.link,
        limits=limits,
        identity=config.security.identity,
    ) as client:
        server = uvicorn.Server(
            uvicorn.Config(
                build_app(config, client, keys, watch),
                http=BoundedProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=CONNECTIONS_MAX,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=DRAIN_S,
            )
        )
        stopping = asyncio.create_task(_watch(stop, server))
        gc.freeze()  # what is there now stays: looking it through again would hold up streams
        announce(address.url)
        await server.serve(sockets=[listener])
        stopping.cancel()


async def _watch(stop: Event, server: uvicorn.Server) -> None:
    """`stop` is set by another thread, and waiting for it would block the loop."""
    while not stop.is_set():
        await asyncio.sleep(STOP_POLL_S)
    server.should_exit = True
