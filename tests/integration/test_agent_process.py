"""A real agent process over sockets, with the simulated engine."""

import signal
import subprocess
import sys
import time

import msgspec
import pytest
import zmq

from festina.config import AgentConfig, Config, DeploymentConfig, LinkConfig
from festina.messages import (
    Accepted,
    Failed,
    Finished,
    Generate,
    Leave,
    Ping,
    Pong,
    Register,
    Summary,
    Tokens,
    Welcome,
)
from festina.runtime.transport import Link

LINK = LinkConfig(heartbeat_s=0.1)
CONFIG = Config(
    deployments=(
        DeploymentConfig(name="chat", weights="sim:llama-8b", pace=0.0),
        DeploymentConfig(name="slow", weights="sim:llama-8b", pace=1.0),
    ),
    link=LINK,
    agent=AgentConfig(client_timeout_s=1.0),
)
PROGRAM = """
import signal, sys, threading
import msgspec
from festina.config import Config
from festina.runtime.agent import run
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
config = msgspec.json.decode(sys.argv[1], type=Config)
run(config, "gpu0", sys.argv[2], sys.argv[3], lambda endpoint: print(endpoint, flush=True), stop)
"""
PATIENCE_S = 30.0


class Peer:
    """A link that keeps what it received, heartbeats answered and left out."""

    def __init__(self, link):
        self.link = link
        self.received = []

    def until(self, wanted):
        """Receive until `wanted(message)`; that message."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            self.link.wait(0.1)
            for peer, message in self.link.receive(1):
                if isinstance(message, Ping):
                    self.link.send(Pong(message.nonce, 1), peer)
                    continue
                self.received.append((peer, message))
                if wanted(message):
                    return peer, message
        raise AssertionError(f"not received; the last were {self.received[-5:]}")


@pytest.fixture
def context():
    with zmq.Context() as context:
        yield context


@pytest.fixture
def scheduler(context):
    with Link.bind(context, "tcp://127.0.0.1:0", LINK) as link:
        yield Peer(link)


def start(gpu, scheduler, config=CONFIG):
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            PROGRAM,
            msgspec.json.encode(config).decode(),
            gpu,
            scheduler.link.endpoint,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def agent(scheduler):
    with start("sim", scheduler) as process:
        process.endpoint = process.stdout.readline().strip()
        yield process
        process.kill()


@pytest.fixture
def client(context, agent):
    with Link.connect(context, agent.endpoint, LINK) as link:
        yield Peer(link)


def register(scheduler):
    peer, message = scheduler.until(lambda m: isinstance(m, Register))
    scheduler.link.send(Welcome(1), peer)
    return peer, message


def generate(client, registered, request_id, **fields):
    fields = {"model": "chat", "text": "hello", "max_tokens": 12, **fields}
    client.link.send(
        Generate(request_id=request_id, ticket=1, epoch=registered.epoch, elapsed_ms=0.0, **fields)
    )


def is_end(request_id):
    return lambda m: isinstance(m, Finished | Failed) and m.request_id == request_id


def test_a_request_is_accepted_streamed_and_finished_once(scheduler, agent, client):
    _, registered = register(scheduler)
    assert registered.endpoint == agent.endpoint
    generate(client, registered, "r1")
    _, finished = client.until(is_end("r1"))
    messages = [m for _, m in client.received]
    assert isinstance(messages[0], Accepted)
    assert messages[0].input_tokens == 5
    tokens = [m for m in messages if isinstance(m, Tokens)]
    assert [m.index for m in tokens] == list(range(12))
    assert finished.usage.output_tokens == 12
    assert finished.usage.energy_j > 0
    _, summary = scheduler.until(lambda m: isinstance(m, Summary) and 1 in m.gpu.tickets)
    assert summary.gpu.power_source == "modelled"


def test_many_streams_of_two_models_each_end_once(scheduler, agent, client):
    _, registered = register(scheduler)
    names = [f"r{i}" for i in range(40)]
    for i, name in enumerate(names):
        generate(client, registered, name, model=("chat", "slow")[i % 2], max_tokens=5 + i % 7)
    ends = set()
    while ends != set(names):
        _, end = client.until(lambda m: isinstance(m, Finished | Failed))
        assert isinstance(end, Finished)
        assert end.request_id not in ends
        ends.add(end.request_id)


def test_a_client_that_vanishes_frees_its_blocks(context, scheduler, agent):
    _, registered = register(scheduler)
    with Link.connect(context, agent.endpoint, LINK) as link:
        generate(Peer(link), registered, "r1", max_tokens=2000)
        scheduler.until(lambda m: isinstance(m, Summary) and any(x.running for x in m.gpu.models))
    _, summary = scheduler.until(
        lambda m: isinstance(m, Summary) and m.gpu.models and not m.gpu.models[0].running
    )
    assert summary.gpu.kv_tokens_free == summary.gpu.kv_tokens_total > 0


def test_streams_go_on_when_the_scheduler_has_gone(context, agent, scheduler, client):
    _, registered = register(scheduler)
    generate(client, registered, "r1", max_tokens=150)
    client.until(lambda m: isinstance(m, Tokens))
    scheduler.link.close()
    _, end = client.until(is_end("r1"))
    assert isinstance(end, Finished)
    assert end.usage.output_tokens == 150


def test_sigterm_ends_requests_with_an_error_and_leaves_the_scheduler(scheduler, agent, client):
    _, registered = register(scheduler)
    generate(client, registered, "r1", max_tokens=2000)
    client.until(lambda m: isinstance(m, Tokens))
    agent.send_signal(signal.SIGTERM)
    _, end = client.until(is_end("r1"))
    assert end.error.code == "agent_lost"
    scheduler.until(lambda m: isinstance(m, Leave))
    assert agent.wait(PATIENCE_S) == 0


def test_an_unknown_device_is_a_typed_error(scheduler):
    with start("tpu", scheduler) as process:
        assert process.wait(PATIENCE_S) != 0
