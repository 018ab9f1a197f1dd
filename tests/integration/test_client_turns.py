"""A burst of messages leaves the caller's own tasks their turns."""

import asyncio
import time

import zmq

from festina.config import LinkConfig
from festina.messages import Generate, Placed, Submit, Tokens
from festina.runtime.client import AsyncClient
from festina.runtime.client_loop import TURN_MAX
from festina.runtime.generation import make_job
from festina.runtime.protocol.client_effects import ClientLimits
from festina.runtime.transport import Link

LINK = LinkConfig(heartbeat_s=60.0, linger_ms=0)
LIMITS = ClientLimits(resend_s=60.0)
BURST = 10 * TURN_MAX
ARRIVES_S = 0.2
"""Long enough for a burst to be in the client's socket when its loop looks again."""


async def answer(link, kind, reply):
    """Wait for a message of that kind, and send the reply; who sent it."""
    while True:
        for peer, message in link.receive(1):
            if isinstance(message, kind):
                link.send(reply(message), peer)
                return peer
        await asyncio.sleep(0.001)


async def heard_in_turns(context):
    """Of each token of a burst, in which turn of the loop its listener heard it."""
    turn, heard, loop = 0, [], asyncio.get_running_loop()

    def count():
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    job = make_job("chat", {"prompt": "x", "max_tokens": BURST + 2})
    name = job.submit.request_id
    with (
        Link.bind(context, "tcp://127.0.0.1:0", LINK) as scheduler,
        Link.bind(context, "tcp://127.0.0.1:0", LINK) as agent,
    ):
        async with AsyncClient(scheduler.endpoint, link=LINK, limits=LIMITS) as client:
            client.start(job, lambda event: heard.append((turn, event)))
            placed = Placed(name, "gpu0", 1, agent.endpoint, 1)
            await answer(scheduler, Submit, lambda _: placed)
            peer = await answer(agent, Generate, lambda _: Tokens(name, 0, (1,), "x"))
            while not heard:
                await asyncio.sleep(0.001)
            loop.call_soon(count)
            for index in range(1, BURST + 1):
                agent.send(Tokens(name, index, (1,), "x"), peer)
            time.sleep(ARRIVES_S)  # the loop stands still, to find all of it at once
            while len(heard) <= BURST:
                await asyncio.sleep(0.001)
    return [at for at, event in heard[1:] if isinstance(event, Tokens)]


def test_a_burst_is_read_in_turns():
    with zmq.Context() as context:
        turns = asyncio.run(heard_in_turns(context))
    assert len(turns) == BURST
    assert max(turns.count(turn) for turn in turns) <= TURN_MAX
