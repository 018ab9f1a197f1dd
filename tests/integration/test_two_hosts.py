"""Two network namespaces as two hosts: served across, moved across, cut in the middle, healed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.hosts import Hosts, can_make_hosts
from tests.support.two_hosts import AGENTS, TwoHosts, eventually

pytestmark = [
    pytest.mark.skipif(not can_make_hosts(), reason="needs root, to make network namespaces"),
    pytest.mark.timeout(180),
]
SHORT_TOKENS, LONG_TOKENS = 16, 320
PLACES = [
    ("near", "near", "agent.send.KvBlocks=stop@30"),
    ("far", "far", "agent.send.Handover=stop"),
    ("near", "far", "agent.send.Taken=stop"),
    ("far", "far", "agent.send.KvBlocks=stop@30"),
    ("near", "near", "agent.send.Handover=stop"),
    ("far", "near", "agent.send.Taken=stop"),
]
"""Who gives requests away, who is held still, and where in a move."""
CUTS = int(os.environ.get("FESTINA_CUTS", "3"))
"""How many of them are tried; `FESTINA_CUTS=6` tries all."""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts() as hosts:
        yield hosts


def test_a_cut_link_breaks_no_promise(hosts: Hosts, tmp_path: Path):
    """Served across hosts; when the cable is cut each request ends once; then all is as before."""
    cluster = TwoHosts(hosts, tmp_path / "keys")
    cluster.join("far", host=1)
    client = cluster.client()
    eventually(lambda: client.agents() == ["far"])
    assert client.run(requests=8, max_tokens=SHORT_TOKENS) == {"complete far": 8}

    client.tell(requests=20, max_tokens=LONG_TOKENS)
    cluster.join("near", host=0)
    hosts.cut()
    ends = client.hear()
    assert sum(ends.values()) == 20
    assert set(ends) <= {"complete far", "complete near", "agent_lost"}
    eventually(lambda: client.agents() == ["near"])
    assert client.run(requests=8, max_tokens=SHORT_TOKENS) == {"complete near": 8}

    hosts.heal()
    eventually(lambda: client.agents() == ["far", "near"])
    ends = client.run(requests=20, max_tokens=SHORT_TOKENS)
    assert sum(ends.values()) == 20
    assert set(ends) <= {"complete far", "complete near"}


def test_requests_move_from_host_to_host(hosts: Hosts, tmp_path: Path):
    """To and fro while they stream; the client compares each with one that never moved."""
    cluster = TwoHosts(hosts, tmp_path / "keys")
    cluster.join("near", host=0)
    client, operator = cluster.client(), cluster.operator()
    eventually(lambda: client.agents() == ["near"])
    assert client.run(requests=1, max_tokens=LONG_TOKENS) == {"complete near": 1}
    cluster.join("far", host=1)
    eventually(lambda: operator.ready("far", "near"))
    for source, target, method in (("near", "far", "copy"), ("far", "near", "recompute")):
        client.tell(requests=6, max_tokens=LONG_TOKENS, moves=True)
        eventually(lambda: sum(operator.busy().values()) == 6)
        operator.move(target, source)
        eventually(lambda s=source, t=target: operator.busy() == {s: 6, t: 0})
        operator.move(source, target, method)
        ends = client.hear()
        assert ends.pop("moves") >= 6, ends
        assert sum(ends.values()) == 6
        assert set(ends) <= {"complete far", "complete near"}
    eventually(lambda: operator.busy() == dict.fromkeys(sorted(AGENTS), 0))


@pytest.mark.parametrize(("source", "stopped", "place"), PLACES[:CUTS])
def test_a_link_that_is_cut_in_the_middle_of_a_move(
    source: str, stopped: str, place: str, hosts: Hosts, tmp_path: Path
):
    """One side is held still at the named place while the cable is pulled; later all is as before.

    Requests go on from what the client has; none repeats, skips or changes a token.
    """
    target = next(name for name in AGENTS if name != source)
    cluster = TwoHosts(hosts, tmp_path / "keys")
    pids = {
        name: cluster.join(name, host, place if name == stopped else "")
        for host, name in enumerate(AGENTS)
    }
    client, operator = cluster.client(), cluster.operator()
    eventually(lambda: operator.ready(*AGENTS))
    assert sum(client.run(requests=1, max_tokens=LONG_TOKENS).values()) == 1
    client.tell(requests=4, max_tokens=LONG_TOKENS)
    eventually(lambda: sum(operator.busy().values()) == 4)
    operator.move(target, source)
    eventually(lambda: operator.busy() == {source: 4, target: 0})
    operator.move(source, target)
    eventually(lambda: is_stopped(pids[stopped]))
    hosts.cut()
    os.kill(pids[stopped], signal.SIGCONT)
    ends = client.hear()
    assert sum(ends.values()) == 4
    assert set(ends) <= {"complete far", "complete near", "agent_lost"}

    hosts.heal()
    eventually(lambda: operator.busy() == dict.fromkeys(AGENTS, 0))
    ends = client.run(requests=8, max_tokens=SHORT_TOKENS)
    assert sum(ends.values()) == 8
    assert set(ends) <= {"complete far", "complete near"}


def is_stopped(pid: int) -> bool:
    """Whether a process is held still."""
    state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return state == "T"
