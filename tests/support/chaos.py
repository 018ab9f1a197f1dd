"""Murder: a real cluster under load whose processes are killed, by hand and at failpoints.

Every token that comes is compared with the only right answer, which is what an undisturbed run
gives. The seed decides who is killed how; when that happens among real processes is not repeatable.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from live_cluster import HEARTBEAT_S, LINK

import festina
from festina.errors import FestinaError
from festina.messages import AgentInfo, Direct, Generate, Migrate, Submit
from festina.runtime.failpoints import SEED_VARIABLE, VARIABLE
from festina.runtime.protocol.client_effects import ClientLimits
from festina.runtime.protocol.request import Job
from festina.runtime.supervisor import Cluster, Restart
from festina.runtime.transport import Link
from festina.simulator.faults.demand import right_answer

AGENT_POINTS = {
    "agent.receive.Generate": (1, 30),
    "agent.receive.Cancel": (1, 3),
    "agent.receive.Welcome": (1, 1),
    "agent.send.Register": (1, 2),
    "agent.send.Accepted": (1, 30),
    "agent.send.Tokens": (1, 2000),
    "agent.send.Finished": (1, 15),
    "agent.send.Summary": (1, 100),
    "agent.send.Offer": (1, 3),
    "agent.receive.Offer": (1, 3),
    "agent.receive.Ready": (1, 3),
    "agent.send.KvBlocks": (1, 4),
    "agent.receive.KvBlocks": (1, 4),
    "agent.send.Handover": (1, 2),
    "agent.receive.Handover": (1, 2),
    "agent.send.Taken": (1, 2),
    "agent.receive.Taken": (1, 2),
    "agent.send.Attached": (1, 2),
}
SCHEDULER_POINTS = {
    "scheduler.receive.Submit": (1, 60),
    "scheduler.receive.Register": (1, 3),
    "scheduler.receive.Summary": (1, 300),
    "scheduler.receive.Twin": (1, 30),
    "scheduler.send.Placed": (1, 60),
    "scheduler.send.Welcome": (1, 3),
}
CLIENT_POINTS = {
    "client.send.Submit": (5, 40),
    "client.send.Generate": (5, 40),
    "client.receive.Placed": (5, 40),
    "client.receive.Tokens": (1, 2000),
    "client.receive.Finished": (1, 20),
    "client.receive.Moving": (1, 3),
    "client.send.Attach": (1, 3),
}
EXPENDABLE = "client"


@dataclass
class Toll:
    """What has happened.

    Attributes:
        kills: Deaths by process, without its number.
        stops: Processes that were stopped for a while.
        ends: How requests ended: "complete" or the code of an error.
        tokens: Tokens that were streamed, and compared.
        resumptions: Times that a stream went on elsewhere.
        moves: Times that a stream moved to another agent with its KV cache or without.
        wrong: Broken promises.
    """

    kills: Counter = field(default_factory=Counter)
    stops: int = 0
    ends: Counter = field(default_factory=Counter)
    tokens: int = 0
    resumptions: int = 0
    moves: int = 0
    wrong: list = field(default_factory=list)

    def __str__(self) -> str:
        kills = ", ".join(f"{count} {name}" for name, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({kills}), {self.stops} stops; "
            f"requests {dict(self.ends)}; {self.tokens} tokens, "
            f"{self.resumptions} resumptions, {self.moves} moves; "
            f"{len(self.wrong)} broken promises"
        )


class Fates:
    """Which failpoint each process gets as it is started.

    Args:
        rng: Draws.
        share: Of the processes that get one.
    """

    def __init__(self, rng: random.Random, share: float) -> None:
        self._rng = rng
        self._share = share
        self.armed = False

    def environment(self, name: str) -> Mapping[str, str]:
        """Variables of the process of that name; none until all have been started once."""
        if not self.armed or self._rng.random() >= self._share:
            return {}
        points = AGENT_POINTS
        if name in ("scheduler", "standby"):
            points = SCHEDULER_POINTS
        elif name == EXPENDABLE:
            points = CLIENT_POINTS
        point = self._rng.choice(sorted(points))
        low, high = points[point]
        seed = str(self._rng.randrange(2**32))
        return {VARIABLE: f"{point}=kill@{low}-{high}", SEED_VARIABLE: seed}


class Chaos:
    """One run.

    Args:
        cluster: What is disturbed; it starts its dead again, and tells `on_restart`.
        fates: Of its processes.
        rng: Draws.
        streams: Requests at once.
        pause_s: Mean time between two kills by hand.
    """

    def __init__(
        self, cluster: Cluster, fates: Fates, rng: random.Random, streams: int, pause_s: float
    ) -> None:
        self._cluster = cluster
        self._fates = fates
        self._rng = rng
        self._streams = streams
        self._pause_s = pause_s
        self._client = festina.AsyncClient(
            cluster.endpoint,
            standby_endpoint=cluster.standby_endpoint,
            link=LINK,
            limits=ClientLimits(answer_timeout_s=30.0, resumptions_max=20),
        )
        self._expendable: subprocess.Popen | None = None
        self._stopped: set[str] = set()
        self._over = False
        self._orders = 0
        self.toll = Toll()

    def on_restart(self, restart: Restart) -> None:
        """A process died, whoever killed it. Called by the thread that starts it again."""
        death = restart.death
        if death.exit_code == -signal.SIGKILL:
            self.toll.kills[death.name.rstrip("0123456789")] += 1
        else:
            self.toll.wrong.append(f"{death.name} ended by itself with {death.exit_code}")

    async def run(self, kills: int, tokens: int, limit_s: float) -> None:
        """Until so many are dead and streamed, or time is up; then let all requests end."""
        until = time.monotonic() + limit_s
        async with self._client:
            self._fates.armed = True
            work = [self._stream(number) for number in range(self._streams)]
            tasks = [asyncio.create_task(task) for task in (*work, self._move_requests())]
            try:
                while time.monotonic() < until and self._short_of(kills, tokens):
                    await asyncio.sleep(self._rng.expovariate(1.0 / self._pause_s))
                    await self._strike()
            finally:
                self._over, self._fates.armed = True, False
                if self._expendable is not None:
                    self._expendable.kill()
                    self._expendable.wait()
            for task in tasks:
                await task
            await self._all_is_free()

    def _short_of(self, kills: int, tokens: int) -> bool:
        return self.toll.kills.total() < kills or self.toll.tokens < tokens

    # Murder

    async def _strike(self) -> None:
        self._keep_expendable()
        name = self._rng.choice([*self._cluster.pids, EXPENDABLE])
        if name == EXPENDABLE:
            if self._expendable is not None:
                self._expendable.kill()
            return
        pid = self._cluster.pids[name]
        if self._rng.random() < 0.15 and not self._stopped:
            self.toll.stops += 1
            task = asyncio.create_task(self._stop_for_a_while(name, pid))
            self._stopped.add(name)
            task.add_done_callback(lambda _: self._stopped.discard(name))
            return
        _signal(pid, signal.SIGKILL)

    async def _stop_for_a_while(self, name: str, pid: int) -> None:
        _signal(pid, signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(0.0, 8 * HEARTBEAT_S))
        _signal(pid, signal.SIGCONT)

    def _keep_expendable(self) -> None:
        """A client of its own that is killed as the others are."""
        if self._expendable is not None:
            if self._expendable.poll() is None:
                return
            self.toll.kills[EXPENDABLE] += 1
        script = Path(__file__).with_name("chaos_client.py")
        words = [self._cluster.endpoint, self._cluster.standby_endpoint, str(self._rng.random())]
        self._expendable = subprocess.Popen(
            [sys.executable, str(script), *words],
            env=os.environ | dict(self._fates.environment(EXPENDABLE)),
            stdout=subprocess.DEVNULL,
        )

    # Requests

    async def _stream(self, number: int) -> None:
        rng = random.Random(f"{number}/{self._rng.random()}")
        while not self._over:
            prompt = [rng.randrange(256) for _ in range(rng.randint(1, 60))]
            outputs = rng.randint(1, 400)
            cancel_at = rng.randint(0, outputs) if rng.random() < 0.05 else None
            await self._one(prompt, outputs, cancel_at)

    async def _one(self, prompt: list[int], outputs: int, cancel_at: int | None) -> None:
        toll = self.toll
        stream = self._client.generate("chat", token_ids=prompt, max_tokens=outputs, retries=50)
        answer = _answer(prompt, outputs)
        got: list[int] = []
        text = ""
        try:
            async for piece in stream:
                if piece.index != len(got):
                    toll.wrong.append(f"token {piece.index} where {len(got)} was due")
                got += piece.token_ids
                text += piece.text
                toll.tokens += len(piece.token_ids)
                if cancel_at is not None and len(got) >= cancel_at:
                    stream.cancel()
            completion = await stream.completion()
        except FestinaError as error:
            toll.ends[error.code] += 1
            if error.code == FestinaError.code:
                toll.wrong.append(f"an error without a type: {error}")
            if tuple(got) != answer[: len(got)]:
                toll.wrong.append(f"{got} before {error.code}, not {answer}")
            return
        toll.ends["complete"] += 1
        toll.resumptions += completion.usage.resumptions
        toll.moves += completion.usage.moves
        if tuple(got) != answer or text != bytes(answer).decode("ascii"):
            toll.wrong.append(f"{got} after {completion.usage}, not {answer}")

    async def _move_requests(self) -> None:
        """Order all requests of an agent to another one, now and then, as a consolidator does."""
        with zmq.Context() as context, ExitStack() as stack:
            endpoints = (self._cluster.endpoint, self._cluster.standby_endpoint)
            links = [stack.enter_context(Link.connect(context, each, LINK)) for each in endpoints]
            while not self._over:
                await asyncio.sleep(self._rng.expovariate(1.0 / self._pause_s))
                try:
                    agents = (await self._client.cluster()).agents
                except FestinaError:
                    continue
                for link in links:  # the one that does not serve refuses
                    for _ in link.receive(256):
                        pass
                    if len(agents) > 1:
                        link.send(self._order(*self._rng.sample(agents, 2)))

    def _order(self, source: AgentInfo, target: AgentInfo) -> Direct:
        method = self._rng.choice(("copy", "copy", "recompute"))
        where = (target.agent, target.epoch, target.endpoint)
        self._orders += 1
        move = Migrate("chat", *where, method=method)
        return Direct(10**9 + self._orders, source.agent, source.epoch, move)

    # The end

    async def _all_is_free(self) -> None:
        """No agent holds a request or a KV block of clients that are gone."""
        held: list[str] = []
        for _ in range(200):
            cluster = await self._client.cluster()
            held = [
                f"{agent.agent} holds {agent.summary.models}"
                for agent in cluster.agents
                if agent.summary.kv_tokens_free != agent.summary.kv_tokens_total
                or any(model.running or model.waiting for model in agent.summary.models)
            ]
            if cluster.agents and not held:
                return
            await asyncio.sleep(0.1)
        self.toll.wrong.append(f"after all requests have ended: {held}")


def _answer(prompt: list[int], outputs: int) -> tuple[int, ...]:
    generate = Generate("r", "chat", 0, 0, outputs, 0.0, token_ids=tuple(prompt))
    return right_answer(Job(Submit("r", "chat", 1, 1), generate))


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # it has died by itself meanwhile
        return
