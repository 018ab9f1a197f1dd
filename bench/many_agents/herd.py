"""Many fake agents in one process, each with a socket of its own to the scheduler.

    python -m bench.many_agents.herd SCHEDULER FIRST COUNT MODELS SUMMARY_HZ

Says where clients find all of them on the first line, "joined" when all are, and on SIGTERM how it
went, as JSON. Requests name their agent by its epoch, which is its number.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import zmq
from bench.many_agents.fake_agent import FakeAgent

from festina.config import LinkConfig
from festina.messages import Accepted, Finished, Generate, Summary, Welcome
from festina.runtime.transport import Link
from festina.types import FinishReason, Provenance, Usage

LINK = LinkConfig()
LASTS_S = (0.5, 3.0)
READ_MAX = 64
JOIN_AGAIN_S = 2.0


@dataclass(slots=True)
class Tally:
    """What the agents of one process did."""

    joined: int = 0
    summaries: int = 0
    late_s_max: float = 0.0
    requests: int = 0
    orders: int = 0
    registers: int = 0


class Herd:
    """The agents and their sockets, each served at its summary's time.

    Args:
        agents: All of them.
        links: Each one's link to the scheduler.
        clients: Where the clients of all come.
        period_s: Time between two summaries of one agent.
    """

    def __init__(
        self, agents: list[FakeAgent], links: list[Link], clients: Link, period_s: float
    ) -> None:
        self._agents, self._links, self._clients = agents, links, clients
        self._period_s = period_s
        self._by_epoch = {agent.epoch: agent for agent in agents}
        self._rng = random.Random(agents[0].epoch)
        self.tally = Tally()

    def join(self) -> None:
        """Register all and wait for their welcomes."""
        waiting = set(range(len(self._agents)))
        asked = 0.0
        while waiting:
            if time.monotonic() - asked > JOIN_AGAIN_S:
                asked = time.monotonic()
                for number in waiting:
                    self._links[number].send(self._agents[number].register())
            for number in list(waiting):
                for _, message in self._links[number].receive(4):
                    self._agents[number].on_message(message, time.monotonic())
                    if isinstance(message, Welcome):
                        waiting.discard(number)
            time.sleep(0.01)
        self.tally.joined = len(self._agents)

    def run(self, stop: list[int]) -> None:
        """Until `stop` holds something."""
        step_s = self._period_s / len(self._agents)
        due, turn = time.monotonic(), 0
        while not stop:
            now = time.monotonic()
            if now < due:
                self._clients.wait(due - now)
            self._serve_clients()
            now = time.monotonic()
            while due <= now:
                self.tally.late_s_max = max(self.tally.late_s_max, now - due)
                self._serve(turn, now)
                turn = (turn + 1) % len(self._agents)
                due += step_s
        self.tally.orders = sum(agent.orders for agent in self._agents)
        self.tally.registers = sum(agent.registers for agent in self._agents)

    def _serve(self, number: int, now: float) -> None:
        agent, link = self._agents[number], self._links[number]
        for _, message in link.receive(READ_MAX):
            for answer in agent.on_message(message, now):
                link.send(answer)
        for said in agent.tell(now):
            link.send(said)
            self.tally.summaries += isinstance(said, Summary)

    def _serve_clients(self) -> None:
        now = time.monotonic()
        for peer, message in self._clients.receive(READ_MAX):
            if not isinstance(message, Generate):
                continue
            lasts_s = self._rng.uniform(*LASTS_S)
            self._by_epoch[message.epoch].take(message.model, message.ticket, lasts_s, now)
            self.tally.requests += 1
            usage = Usage(200, message.max_tokens, 1.0, Provenance.MODELLED)
            self._clients.send(Accepted(message.request_id, 200), peer)
            self._clients.send(Finished(message.request_id, FinishReason.LENGTH, usage), peer)


def main(scheduler: str, first: int, count: int, models: int, summary_hz: float) -> None:
    """Serve until SIGTERM."""
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    names = tuple(f"model{number}" for number in range(models))
    with zmq.Context() as context, ExitStack() as stack:
        context.set(zmq.MAX_SOCKETS, 2 * count + 64)
        clients = stack.enter_context(Link.bind(context, "tcp://127.0.0.1:0", LINK))
        links = [stack.enter_context(Link.connect(context, scheduler, LINK)) for _ in range(count)]
        agents = [
            FakeAgent(f"gpu{number}", number + 1, clients.endpoint, names)
            for number in range(first, first + count)
        ]
        say(clients.endpoint)
        herd = Herd(agents, links, clients, 1.0 / summary_hz)
        herd.join()
        say("joined")
        herd.run(stop)
        say(json.dumps(asdict(herd.tally)))


def say(line: str) -> None:
    """To whoever started this."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5]))
