"""The phases of a soak: how much is served at most, a steady share of that, and too much."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.soak.asking import Asker, Ends

from festina.runtime.client import AsyncClient

PAUSE_S = 0.1
"""Of a closed loop's client that was refused."""


@dataclass(slots=True)
class Phase:
    """What a phase came to.

    Attributes:
        seconds: How long it took, its last answers included.
        ends: How its requests ended.
        rate_hz: Requests a second that were sent; 0 in a closed loop.
        inside: Mean number of requests in the cluster; 0 where nobody looked.
    """

    seconds: float
    ends: Ends
    rate_hz: float = 0.0
    inside: float = 0.0

    @property
    def complete_hz(self) -> float:
        """Requests completed a second."""
        return self.ends.counts["complete"] / self.seconds


async def closed(asker: Asker, clients: int, seconds: float) -> Phase:
    """So many clients, each with one request after the other."""
    ends, start = Ends(), time.monotonic()

    async def client() -> None:
        while time.monotonic() < start + seconds:
            if await asker.ask(ends) == "refused":
                await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*(client() for _ in range(clients)))
    return Phase(time.monotonic() - start, ends)


async def opened(
    asker: Asker,
    rate_hz: float,
    seconds: float,
    rng: random.Random,
    tick: Callable[[], None],
    tick_s: float,
    inside: Callable[[], int],
) -> Phase:
    """Requests when they are due, whatever became of the others (Poisson).

    Args:
        asker: Sends them.
        rate_hz: How many a second.
        seconds: For how long.
        rng: Draws the times between them.
        tick: Called every `tick_s`.
        tick_s: Seconds.
        inside: Requests in the cluster, looked at with each tick.
    """
    ends, start, seen = Ends(), time.monotonic(), []
    due, next_tick = start, start + tick_s
    tasks: set[asyncio.Task[str]] = set()
    while (now := time.monotonic()) < start + seconds:
        if now >= next_tick:
            next_tick += tick_s
            tick()
            seen.append(inside())
        while due <= now:
            task = asyncio.create_task(asker.ask(ends))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += rng.expovariate(rate_hz)
        await asyncio.sleep(max(0.0, min(due, next_tick) - time.monotonic()))
    if tasks:
        await asyncio.wait(tasks)
    mean = sum(seen) / len(seen) if seen else 0.0
    return Phase(time.monotonic() - start, ends, rate_hz, mean)


class Inside:
    """How many requests are in the cluster, asked of the scheduler in the background.

    Args:
        client: Of the cluster.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._count = 0
        self._task: asyncio.Task[None] | None = None

    def __call__(self) -> int:
        """As of the last answer; asks again."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        return self._count

    async def quiet(self, within_s: float) -> None:
        """Wait until there is none.

        Raises:
            TimeoutError: Some still are.
        """
        async with asyncio.timeout(within_s):
            while True:
                await self._look()
                if not self._count:
                    return
                await asyncio.sleep(0.2)

    async def _look(self) -> None:
        cluster = await self._client.cluster()
        models = [model for agent in cluster.agents for model in agent.summary.models]
        self._count = sum(model.running + model.waiting for model in models)
