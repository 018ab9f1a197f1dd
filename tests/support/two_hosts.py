"""A cluster over two hosts: the scheduler and its clients on the first, agents where wanted."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.cluster_keys import ClusterKeys
from tests.support.hosts import Hosts, first_line, innermost

from festina.runtime.failpoints import VARIABLE
from festina.security.roles import Role

HEARTBEAT_S, MISSED_MAX = 0.25, 4
AGENTS = ("near", "far")
"""Where they usually are: on the first host, and on the second."""


class Teller:
    """A process on the first host that takes and answers lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, **line: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, int]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"it ended with {self._process.wait()}"
        return json.loads(line)

    def ask(self, **line: object) -> dict[str, int]:
        self.tell(**line)
        return self.hear()


class Client(Teller):
    """See `two_hosts_client`."""

    def run(self, requests: int, max_tokens: int) -> dict[str, int]:
        return self.ask(requests=requests, max_tokens=max_tokens)

    def agents(self) -> list[str]:
        return list(self.ask(agents=True))


class Operator(Teller):
    """See `two_hosts_operator`."""

    def move(self, source: str, target: str, method: str = "copy") -> None:
        answer = self.ask(source=source, target=target, method=method)
        assert answer == {"error": ""}, answer

    def busy(self) -> dict[str, int]:
        """Requests of each agent, those that move included."""
        return self.ask(busy=True)

    def ready(self, *agents: str) -> bool:
        """Whether each of them can take requests and moves."""
        models = self.ask(ready=True)
        return all(models.get(agent) for agent in agents)


def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.1)


class TwoHosts:
    """A scheduler on the first host and agents where they are wanted, all with keys."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self._hosts = hosts
        self._keys = ClusterKeys(folder)
        self._alice = self._keys.add("alice")
        self._olga = self._keys.add("olga", Role.OPERATOR)
        for name in AGENTS:
            self._keys.add(name, Role.AGENT)
        endpoint = f"tcp://{hosts.addresses[0]}:7100"
        options = ["--endpoint", endpoint, *self._options("scheduler")]
        self.endpoint = first_line(hosts.festina(0, "scheduler", *options))

    def join(self, name: str, host: int, failpoints: str = "") -> int:
        """Process id of an agent that serves."""
        where = _set("agent.endpoint", f"tcp://{self._hosts.addresses[host]}:7101")
        joined = ["--join", self.endpoint, "--name", name, "--gpu", "sim"]
        words = ["agent", *joined, *where, *self._options(name)]
        process = self._hosts.festina(host, *words, environment={VARIABLE: failpoints})
        first_line(process)
        return innermost(process)

    def client(self) -> Client:
        return Client(self._teller("client", self._alice))

    def operator(self) -> Operator:
        return Operator(self._teller("operator", self._olga))

    def _teller(self, program: str, identity: str) -> subprocess.Popen[str]:
        options = [self.endpoint, identity, f"{HEARTBEAT_S}", f"{MISSED_MAX}"]
        return self._hosts.python(0, "-m", f"tests.support.two_hosts_{program}", *options)

    def _options(self, name: str) -> list[str]:
        security = self._keys.security(name)
        settings = {
            "security.identity": security.identity,
            "security.authorized": security.authorized,
            "link.heartbeat_s": HEARTBEAT_S,
            "link.missed_max": MISSED_MAX,
        }
        deploy = ["--deploy", "chat=sim:llama-8b,ttft_ms=5000,tbt_ms=1000,pace=0,preload=true"]
        return deploy + [word for item in settings.items() for word in _set(*item)]


def _set(path: str, value: object) -> list[str]:
    return ["--set", f"{path}={value}"]
