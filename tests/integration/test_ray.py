"""Agents on a Ray cluster of several nodes on one machine."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.integration.test_cluster import CONFIG

import festina
from festina.config import Config
from festina.errors import ConfigError
from festina.runtime.child import Child
from festina.runtime.worker import Task

ray = pytest.importorskip("ray", reason="needs ray (pip install 'festina[ray]')")
cluster_utils = pytest.importorskip("ray.cluster_utils")
ray_agents = pytest.importorskip("festina.runtime.ray_agents")
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore"),  # Ray's own: unclosed files, deprecated calls
]
NODES = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator["cluster_utils.Cluster"]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = cluster_utils.Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "include_dashboard": False},
        )
        for _ in range(NODES - 1):
            cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def machines(cluster) -> list["ray_agents.Machine"]:
    return ray_agents.machines()


@pytest.fixture
def config() -> Config:
    return CONFIG


@pytest.fixture
def endpoint(config: Config) -> Iterator[str]:
    scheduler = Child("scheduler", Task(config))
    yield scheduler.endpoint(time.monotonic() + 60)
    scheduler.stop()
    scheduler.finish(time.monotonic() + 10)


def eventually(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.1)


def generate(client: festina.Client, count: int) -> set[str]:
    """Agents that served `count` requests, all of them whole."""
    streams = [
        client.generate("chat", prompt="hello", max_tokens=32, ignore_eos=True)
        for _ in range(count)
    ]
    done = [stream.completion() for stream in streams]
    assert all(len(item.token_ids) == 32 for item in done)
    return {item.agent for item in done}


def agents_of(client: festina.Client) -> dict[str, int]:
    """Names and epochs."""
    return {info.agent: info.epoch for info in client.cluster().agents}


def test_one_agent_on_each_node_serves_and_is_started_again(machines, endpoint, config):
    wanted = ray_agents.places(machines, "sim", 1)
    assert len({place.node_id for place in wanted}) == NODES
    with (
        ray_agents.RayAgents(config, endpoint, wanted) as agents,
        festina.Client(endpoint, link=config.link) as client,
    ):
        names = set(agents.names)
        eventually(lambda: set(agents_of(client)) == names)
        assert generate(client, 8) <= names
        epochs = agents_of(client)
        victim = agents.names[0]
        os.kill(agents.pid(victim), signal.SIGKILL)
        restarts = agents.restarts()
        eventually(lambda: next(restarts) == victim)
        eventually(lambda: agents_of(client).get(victim, 0) > epochs[victim])
        assert generate(client, 8) <= names
        pids = [agents.pid(name) for name in names]
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def test_launch_and_its_agents_log_as_they_are_told(cluster):
    command = [
        sys.executable, "-m", "festina", "launch", "--ray", cluster.address, "--device", "sim",
        "--log-format", "json", "--endpoint", "tcp://127.0.0.1:0", "--deploy", "chat=sim:llama-8b",
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as launch:
        told = [json.loads(launch.stderr.readline())]
        while (told[-1]["process"], told[-1]["event"]) != ("launch", "serving"):
            told.append(json.loads(launch.stderr.readline()))
        launch.send_signal(signal.SIGINT)
        told += map(json.loads, launch.stderr)
    assert launch.returncode == 0
    assert {"scheduler", "launch"} <= {line["process"] for line in told}
    assert told[-1]["event"] == "stopped"
    logs = Path(cluster.head_node.get_logs_dir_path()).glob("worker-*.err")
    lines = [line for path in logs for line in path.read_text().splitlines()]
    agents = {json.loads(line)["process"] for line in lines if line.startswith("{")}
    assert agents == {f"node{number}-sim0" for number in range(NODES)}


def test_an_agent_that_cannot_start_is_told_and_leaves_nothing(machines, endpoint, config):
    agent = msgspec.structs.replace(config.agent, endpoint="tcp://192.0.2.1:1")
    broken = msgspec.structs.replace(config, agent=agent)
    with (
        pytest.raises(ConfigError, match="no keys"),
        ray_agents.RayAgents(broken, endpoint, ray_agents.places(machines, "sim", 1)),
    ):
        pass


@pytest.mark.parametrize("device", ["tpu", "cuda", "sim2"])
def test_devices_that_are_not_there_are_refused(machines, device):
    with pytest.raises(ConfigError):
        ray_agents.places(machines, device, 1)
