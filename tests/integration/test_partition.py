"""Links between real processes that fall silent: who serves then, and what is so afterwards."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from live_cluster import HEARTBEAT_S, LINK, eventually, sim_config
from msgspec.structs import replace
from stalling_proxy import StallingProxy

import festina
from festina.config import Config
from festina.runtime.child import Child
from festina.runtime.protocol.client_effects import ClientLimits
from festina.runtime.worker import Role, Task

LIMITS = ClientLimits(answer_timeout_s=20.0)


@contextmanager
def child(role: Role, task: Task) -> Iterator[str]:
    """A process, and where it listens."""
    process = Child(role, task)
    try:
        yield process.endpoint(time.monotonic() + 60)
    finally:
        process.stop()
        process.finish(time.monotonic() + 10)


def with_schedulers(config: Config, endpoint: str, standby: str) -> Config:
    pair = replace(config.scheduler, endpoint=endpoint, standby_endpoint=standby)
    return replace(config, scheduler=pair)


@pytest.fixture
def cluster():
    """A proxy before the primary, and the two endpoints of clients; agents pass it by."""
    config = sim_config(standby=True)
    with ExitStack() as stack:
        primary = stack.enter_context(child("scheduler", Task(config)))
        proxy = stack.enter_context(StallingProxy(primary))
        beyond = with_schedulers(config, proxy.endpoint, config.scheduler.standby_endpoint)
        standby = stack.enter_context(child("standby", Task(beyond, "standby")))
        for name in ("sim0", "sim1"):
            task = Task(with_schedulers(config, primary, standby), name, "sim", primary)
            stack.enter_context(child("agent", task))
        yield proxy, standby


def client_of(proxy: StallingProxy, standby: str) -> festina.Client:
    return festina.Client(proxy.endpoint, standby_endpoint=standby, link=LINK, limits=LIMITS)


def serving(endpoint: str) -> bool:
    with festina.Client(endpoint, link=LINK) as client:
        return client.cluster().serves


def test_a_primary_that_is_cut_off_is_stood_in_for_and_yields_when_it_is_back(cluster):
    proxy, standby = cluster
    with client_of(proxy, standby) as client:
        text = client.generate("chat", prompt="hello", retries=20).completion().text
        running = client.generate("chat", prompt="hello", max_tokens=500, retries=20)
        next(iter(running))
        proxy.cut.set()
        assert client.generate("chat", prompt="hello", retries=20).completion().text == text
        assert serving(standby)
        proxy.cut.clear()
        eventually(lambda: not serving(proxy.endpoint))
        assert serving(standby)
        assert client.generate("chat", prompt="hello", retries=20).completion().text == text
        whole = running.completion()  # its agent was never cut off
        assert whole.text.startswith(text[:16])
        assert whole.usage.resumptions == 0


def test_schedulers_that_cannot_hear_each_other_change_nothing_for_clients(cluster):
    proxy, standby = cluster
    primary = "tcp://{}:{}".format(*proxy._target)
    with festina.Client(primary, standby_endpoint=standby, link=LINK, limits=LIMITS) as client:
        client.generate("chat", prompt="hello", retries=20).completion()
        proxy.cut.set()
        until = time.monotonic() + 4 * HEARTBEAT_S
        while time.monotonic() < until:
            client.generate("chat", prompt="x", max_tokens=4, retries=20).completion()
        assert (serving(primary), serving(standby)) == (True, False)
