"""An operator on one of two hosts: has requests moved, and tells who is busy.

Reads one line of JSON per order from stdin, writes one per answer to stdout.
"""

import json
import sys
import time

import zmq

from festina.config import Config, LinkConfig, SecurityConfig
from festina.messages import AnyMessage, Cluster, Direct, Directed, GetCluster, Migrate
from festina.runtime.transport import Link, connect_scheduler
from festina.types import ModelState

PATIENCE_S = 20.0


def answer(link: Link, question: AnyMessage, kind: type) -> AnyMessage:
    """What the scheduler says to it."""
    link.send(question)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        link.wait(0.1)
        for _, message in link.receive(16):
            if isinstance(message, kind):
                return message
    raise AssertionError("the scheduler does not answer")


def move(link: Link, plan: int, source: str, target: str, method: str) -> dict[str, str]:
    """All requests of one agent go to another."""
    agents = {info.agent: info for info in answer(link, GetCluster(), Cluster).agents}
    to = agents[target]
    order = Migrate("chat", to.agent, to.epoch, to.endpoint, method=method)
    directed = answer(link, Direct(plan, source, agents[source].epoch, order), Directed)
    return {"error": directed.error.message if directed.error else ""}


def busy(link: Link) -> dict[str, int]:
    """How many requests each agent has."""
    return {
        info.agent: info.summary.moving + sum(m.running + m.waiting for m in info.summary.models)
        for info in answer(link, GetCluster(), Cluster).agents
    }


def ready(link: Link) -> dict[str, int]:
    """How many models each agent can run."""
    return {
        info.agent: sum(model.state is ModelState.READY for model in info.summary.models)
        for info in answer(link, GetCluster(), Cluster).agents
    }


def main(endpoint: str, identity: str, heartbeat_s: float, missed_max: int) -> None:
    config = Config(
        link=LinkConfig(heartbeat_s=heartbeat_s, missed_max=missed_max),
        security=SecurityConfig(identity=identity),
    )
    with zmq.Context() as context, connect_scheduler(context, endpoint, config) as link:
        for plan, line in enumerate(sys.stdin, start=1):
            order = json.loads(line)
            if order.get("busy"):
                said = busy(link)
            else:
                said = ready(link) if order.get("ready") else move(link, plan, **order)
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
