"""A client on one of two hosts: runs waves of requests and tells what became of them.

Reads one line of JSON per wave from stdin, writes one per wave to stdout. The first output of each
number of tokens is what all later ones must be, token for token, wherever they ran.
"""

import asyncio
import json
import sys
import threading
from collections import Counter

import festina
from festina.config import LinkConfig
from festina.errors import FestinaError
from festina.runtime.protocol.client_effects import ClientLimits

LIMITS = ClientLimits(answer_timeout_s=5.0, resend_s=0.5, probe_s=1.0)
PROMPT = "hello " * 200
Known = dict[int, list[int]]


async def one(client: festina.AsyncClient, max_tokens: int, known: Known) -> tuple[str, int]:
    """How and where it ended, and how often it moved."""
    indices: list[int] = []
    token_ids: list[int] = []
    stream = client.generate("chat", prompt=PROMPT, max_tokens=max_tokens, ignore_eos=True)
    try:
        async for piece in stream:
            indices += range(piece.index, piece.index + len(piece.token_ids))
            token_ids += piece.token_ids
    except FestinaError as error:
        assert indices == list(range(len(indices))), indices
        assert max_tokens not in known or token_ids == known[max_tokens][: len(token_ids)]
        sys.stderr.write(f"{error}\n")
        return error.code, 0
    assert indices == list(range(max_tokens)), indices
    assert known.setdefault(max_tokens, token_ids) == token_ids
    completion = await stream.completion()
    return f"complete {completion.agent}", completion.usage.moves


async def main(endpoint: str, identity: str, heartbeat_s: float, missed_max: int) -> None:
    link = LinkConfig(heartbeat_s=heartbeat_s, missed_max=missed_max)
    waves: asyncio.Queue[str] = asyncio.Queue()
    known: Known = {}
    loop = asyncio.get_running_loop()
    threading.Thread(target=_read, args=(loop, waves), daemon=True).start()
    async with festina.AsyncClient(endpoint, link=link, limits=LIMITS, identity=identity) as client:
        while line := await waves.get():
            wave = json.loads(line)
            if wave.get("agents"):
                say(sorted(info.agent for info in (await client.cluster()).agents))
                continue
            ends = await asyncio.gather(
                *(one(client, wave["max_tokens"], known) for _ in range(wave["requests"]))
            )
            moves = {"moves": sum(moves for _, moves in ends)} if wave.get("moves") else {}
            say(Counter(end for end, _ in ends) | moves)


def say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _read(loop: asyncio.AbstractEventLoop, waves: asyncio.Queue[str]) -> None:
    """On a thread that ends with the process, whatever ends it."""
    for line in sys.stdin:
        loop.call_soon_threadsafe(waves.put_nowait, line)
    loop.call_soon_threadsafe(waves.put_nowait, "")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
