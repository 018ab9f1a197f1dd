"""A client that streams until it is killed: `chaos_client.py ENDPOINT STANDBY SEED`."""

import asyncio
import random
import sys

from live_cluster import LINK

import festina
from festina.errors import FestinaError
from festina.runtime.protocol.client_effects import ClientLimits

STREAMS = 4


async def stream(client: festina.AsyncClient, rng: random.Random) -> None:
    while True:
        prompt = [rng.randrange(256) for _ in range(rng.randint(1, 60))]
        try:
            answer = client.generate("chat", token_ids=prompt, max_tokens=300, retries=20)
            await answer.completion()
        except FestinaError:  # what it is told is looked at elsewhere; here it only holds streams
            await asyncio.sleep(0.1)


async def main(endpoint: str, standby: str, seed: str) -> None:
    limits = ClientLimits(answer_timeout_s=30.0)
    client = festina.AsyncClient(endpoint, standby_endpoint=standby, link=LINK, limits=limits)
    async with client:
        each = (stream(client, random.Random(f"{seed}/{number}")) for number in range(STREAMS))
        await asyncio.gather(*each)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
