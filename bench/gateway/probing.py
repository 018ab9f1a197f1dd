"""Requests whose first token is timed, while others stream: by festina's client and over HTTP.

They arrive open loop, a Poisson process: none waits for another one's end. Each takes one of the
two ways by a coin's toss, so both see the same load of the same GPU at the same time. Each of them
over HTTP opens a connection of its own, which counts.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Literal
from urllib.parse import urlsplit

from bench.gateway.streams import DONE, PROMPT, READ_BYTES, TOKEN, request

from festina.runtime.client import AsyncClient

TOKENS = 8
Way = Literal["client", "gateway"]


async def by_client(client: AsyncClient) -> float:
    """Milliseconds to the first token through festina's own client."""
    start = time.perf_counter()
    first = 0.0
    async for piece in client.generate("chat", prompt=PROMPT, max_tokens=TOKENS):
        if piece.token_ids and not first:
            first = time.perf_counter()
    return (first - start) * 1000


async def by_gateway(url: str) -> float:
    """Milliseconds to the first token over HTTP, from before the connection is asked for."""
    place, ask, loop = urlsplit(url), request(url, TOKENS), asyncio.get_running_loop()
    start = time.perf_counter()
    with socket.socket() as link:
        link.setblocking(False)
        await loop.sock_connect(link, (place.hostname, place.port))
        await loop.sock_sendall(link, ask)
        first, answer = 0.0, b""
        while data := await loop.sock_recv(link, READ_BYTES):
            answer += data
            if not first and TOKEN in answer:
                first = time.perf_counter()
    if answer.count(TOKEN) != TOKENS or DONE not in answer:
        raise RuntimeError(f"not the answer that was asked for: {answer!r}")
    return (first - start) * 1000


async def probe(
    client: AsyncClient, url: str, count: int, apart_s: float, rng: random.Random
) -> dict[Way, list[float]]:
    """Send so many requests.

    Args:
        client: Straight to the cluster.
        url: Of the gateway.
        count: How many, both ways together.
        apart_s: Mean time between two arrivals.
        rng: Draws arrivals and ways.

    Returns:
        Milliseconds to the first token, by way.
    """
    ways: dict[Way, Callable[[], Awaitable[float]]] = {
        "client": lambda: by_client(client),
        "gateway": lambda: by_gateway(url),
    }
    seen: dict[Way, list[float]] = {way: [] for way in ways}

    async def one(way: Way, after_s: float) -> None:
        await asyncio.sleep(after_s)
        seen[way].append(await ways[way]())

    due_s = 0.0
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            due_s += rng.expovariate(1 / apart_s)
            group.create_task(one(rng.choice(tuple(ways)), due_s))
    return seen
