"""Orders moves in a real cluster, as its consolidator would, while its clients listen."""

import time

import zmq
from live_cluster import LINK, eventually

import festina
from festina.messages import Direct, Directed, Migrate
from festina.runtime.transport import Link


class Mover:
    """An operator that sends requests from agent to agent."""

    def __init__(self, cluster, model="chat"):
        self._context = zmq.Context()
        self._link = Link.connect(self._context, cluster.endpoint, LINK)
        self._client = festina.Client(cluster.endpoint, link=LINK)
        self._client.__enter__()
        self._model = model
        self._plan = 0

    def agents(self):
        """Who is there, by name."""
        return {info.agent: info for info in self._client.cluster().agents}

    def order(self, request_ids=(), method="copy", agents=None):
        """Every agent is told to give these requests, if it has them, to the next one."""
        infos = list((agents or self.agents()).values())
        for index, info in enumerate(infos):
            target = infos[(index + 1) % len(infos)]
            order = Migrate(
                self._model,
                target.agent,
                target.epoch,
                target.endpoint,
                tuple(request_ids),
                method,
            )
            self._plan += 1
            self._link.send(Direct(self._plan, info.agent, info.epoch, order))
        self._answers(len(infos))

    def quiet(self):
        """Wait until nothing moves and nothing runs."""
        eventually(
            lambda: (
                not any(
                    info.summary.moving or any(m.running or m.waiting for m in info.summary.models)
                    for info in self.agents().values()
                )
            )
        )

    def close(self):
        self._client.__exit__(None, None, None)
        self._link.close()
        self._context.term()

    def _answers(self, count):
        deadline = time.monotonic() + 30
        while count:
            assert time.monotonic() < deadline, "the scheduler does not answer"
            self._link.wait(0.1)
            for _, message in self._link.receive(count):
                if isinstance(message, Directed):
                    assert message.error is None, message
                    count -= 1
