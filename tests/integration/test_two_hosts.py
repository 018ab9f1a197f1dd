"""Two network namespaces as two hosts: served across, cut in the middle, healed."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.cluster_keys import ClusterKeys
from tests.support.hosts import Hosts, can_make_hosts, first_line

from festina.security.roles import Role

pytestmark = [
    pytest.mark.skipif(not can_make_hosts(), reason="needs root, to make network namespaces"),
    pytest.mark.timeout(180),
]
HEARTBEAT_S, MISSED_MAX = 0.25, 4


class Client:
    """The client process on the first host."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, **wave: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(wave) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, int]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the client ended with {self._process.wait()}"
        return json.loads(line)

    def run(self, requests: int, max_tokens: int) -> dict[str, int]:
        self.tell(requests=requests, max_tokens=max_tokens)
        return self.hear()

    def agents(self) -> list[str]:
        self.tell(agents=True)
        return list(self.hear())


def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.1)


class Cluster:
    """A scheduler on the first host and agents where they are wanted, all with keys."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self._hosts = hosts
        self._keys = ClusterKeys(folder)
        self._alice = self._keys.add("alice")
        for name in ("near", "far"):
            self._keys.add(name, Role.AGENT)
        endpoint = f"tcp://{hosts.addresses[0]}:7100"
        options = ["--endpoint", endpoint, *self._options("scheduler")]
        self.endpoint = first_line(hosts.festina(0, "scheduler", *options))

    def join(self, name: str, host: int) -> None:
        where = _set("agent.endpoint", f"tcp://{self._hosts.addresses[host]}:7101")
        joined = ["--join", self.endpoint, "--name", name, "--gpu", "sim"]
        options = self._options(name)
        first_line(self._hosts.festina(host, "agent", *joined, *where, *options))

    def client(self) -> Client:
        options = [self.endpoint, self._alice, f"{HEARTBEAT_S}", f"{MISSED_MAX}"]
        return Client(self._hosts.python(0, "-m", "tests.support.two_hosts_client", *options))

    def _options(self, name: str) -> list[str]:
        security = self._keys.security(name)
        settings = {
            "security.identity": security.identity,
            "security.authorized": security.authorized,
            "link.heartbeat_s": HEARTBEAT_S,
            "link.missed_max": MISSED_MAX,
        }
        deploy = ["--deploy", "chat=sim:llama-8b,ttft_ms=5000,tbt_ms=1000,pace=0"]
        return deploy + [word for item in settings.items() for word in _set(*item)]


def _set(path: str, value: object) -> list[str]:
    return ["--set", f"{path}={value}"]


def test_a_cut_link_breaks_no_promise(tmp_path: Path):
    """Served across hosts; when the cable is cut each request ends once; then all is as before."""
    with Hosts() as hosts:
        cluster = Cluster(hosts, tmp_path / "keys")
        cluster.join("far", host=1)
        client = cluster.client()
        eventually(lambda: client.agents() == ["far"])
        assert client.run(requests=20, max_tokens=64) == {"complete far": 20}

        client.tell(requests=20, max_tokens=400)
        cluster.join("near", host=0)
        hosts.cut()
        ends = client.hear()
        assert sum(ends.values()) == 20
        assert set(ends) <= {"complete far", "complete near", "agent_lost"}
        eventually(lambda: client.agents() == ["near"])
        assert client.run(requests=8, max_tokens=16) == {"complete near": 8}

        hosts.heal()
        eventually(lambda: client.agents() == ["far", "near"])
        ends = client.run(requests=20, max_tokens=64)
        assert sum(ends.values()) == 20
        assert set(ends) <= {"complete far", "complete near"}
