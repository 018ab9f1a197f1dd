"""The clients of a run: requests when they are due, timed heartbeats, a look each second."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field

import zmq

from festina.config import LinkConfig
from festina.messages import (
    Cluster,
    Finished,
    Generate,
    GetCluster,
    Ping,
    Placed,
    Pong,
    Refused,
    Submit,
)
from festina.runtime.transport import Link, wait

HEARTBEAT_S, LOOK_S = 0.5, 1.0
DRAIN_S = 5.0
LINK = LinkConfig(queue_max=100_000)


@dataclass(slots=True)
class Seen:
    """What the clients saw.

    Attributes:
        decision_ms: From when a request was due to its placement or refusal.
        heartbeat_ms: From a ping's due time to its answer.
        look_ms: From a question for the whole cluster to its answer.
        silent_ms: Of each agent in those answers, how long the scheduler had not heard it.
        ends: "placed", "refused CODE", "finished".
        seconds: Of the run.
    """

    decision_ms: list[float] = field(default_factory=list)
    heartbeat_ms: list[float] = field(default_factory=list)
    look_ms: list[float] = field(default_factory=list)
    silent_ms: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class Asker:
    """All clients on one thread.

    Args:
        context: ZeroMQ's.
        scheduler: Where it listens.
        models: How many deployments there are; they are asked for as Zipf says.
        rng: Draws models and lengths.
        probes: Links that say heartbeats.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        scheduler: str,
        models: int,
        rng: random.Random,
        probes: int,
    ) -> None:
        self._context = context
        self._submits = Link.connect(context, scheduler, LINK)
        self._looks = Link.connect(context, scheduler, LINK)
        self._probes = [Link.connect(context, scheduler, LINK) for _ in range(probes)]
        self._agents: dict[str, Link] = {}
        self._models = [f"model{number}" for number in range(models)]
        self._weights = [1.0 / (rank + 1) for rank in range(models)]
        self._rng = rng
        self._due: dict[str, float] = {}
        self._submitted: dict[str, Submit] = {}
        self._pinged: list[float] = [0.0] * probes
        self._looked = 0.0

    def close(self) -> None:
        """All links."""
        for link in (self._submits, self._looks, *self._probes, *self._agents.values()):
            link.close()

    def run(self, rate_hz: float, seconds: float) -> Seen:
        """Requests at a steady rate, then what is still to come."""
        seen, sent, start = Seen(), 0, time.monotonic()
        apart_s = HEARTBEAT_S / len(self._probes)
        pings = [start + number * apart_s for number in range(len(self._probes))]
        look = start
        end = start + seconds
        while (now := time.monotonic()) < end or (self._due and now < end + DRAIN_S):
            while now < end and start + sent / rate_hz <= now:
                self._submit(f"r{sent}", start + sent / rate_hz)
                sent += 1
            for number, due in enumerate(pings):
                if due <= now:
                    self._probes[number].send(Ping(number))
                    self._pinged[number] = due
                    pings[number] += HEARTBEAT_S
            if look <= now:
                self._looks.send(GetCluster())
                self._looked, look = time.monotonic(), look + LOOK_S
            next_due = min(*pings, look, start + sent / rate_hz if now < end else now + 0.05)
            links = (self._submits, self._looks, *self._probes, *self._agents.values())
            if wait(links, max(0.0, next_due - time.monotonic())):
                self._read(seen)
        seen.seconds = time.monotonic() - start
        return seen

    def _submit(self, request_id: str, due: float) -> None:
        model = self._rng.choices(self._models, self._weights)[0]
        submit = Submit(request_id, model, self._rng.randint(50, 800), self._rng.randint(50, 300))
        self._due[request_id], self._submitted[request_id] = due, submit
        self._submits.send(submit)

    def _read(self, seen: Seen) -> None:
        now = time.monotonic()
        for _, message in self._submits.receive(64):
            if isinstance(message, Placed | Refused):
                seen.decision_ms.append((now - self._due.pop(message.request_id)) * 1e3)
            if isinstance(message, Placed):
                seen.ends["placed"] += 1
                self._generate(message)
            elif isinstance(message, Refused):
                seen.ends[f"refused: {message.error.code}"] += 1
        for number, probe in enumerate(self._probes):
            for _, message in probe.receive(4):
                if isinstance(message, Pong):
                    seen.heartbeat_ms.append((now - self._pinged[number]) * 1e3)
        for _, message in self._looks.receive(4):
            if isinstance(message, Cluster):
                seen.look_ms.append((time.monotonic() - self._looked) * 1e3)
                seen.silent_ms += [agent.silent_ms for agent in message.agents]
        for link in self._agents.values():
            for _, message in link.receive(64):
                seen.ends["finished"] += isinstance(message, Finished)

    def _generate(self, placed: Placed) -> None:
        if placed.endpoint not in self._agents:
            self._agents[placed.endpoint] = Link.connect(self._context, placed.endpoint, LINK)
        submit = self._submitted.pop(placed.request_id)
        generate = Generate(
            submit.request_id, submit.model, placed.ticket, placed.epoch, submit.max_tokens, 0.0,
            text="a prompt of a few words",
        )  # fmt: skip
        self._agents[placed.endpoint].send(generate)
