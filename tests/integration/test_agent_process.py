"""A real agent process over sockets, with the simulated engine."""

import signal

import pytest
import zmq
from agent_process import LINK, PATIENCE_S, Peer, generate, is_end, register, start_agent

from festina.config import AgentConfig, Config, DeploymentConfig
from festina.messages import (
    Accepted,
    Failed,
    Finished,
    Leave,
    Summary,
    Tokens,
)
from festina.runtime.transport import Link

CONFIG = Config(
    deployments=(
        DeploymentConfig(name="chat", weights="sim:llama-8b", pace=0.0),
        DeploymentConfig(name="slow", weights="sim:llama-8b", pace=1.0),
    ),
    link=LINK,
    agent=AgentConfig(client_timeout_s=1.0),
)


@pytest.fixture
def context():
    with zmq.Context() as context:
        yield context


@pytest.fixture
def scheduler(context):
    with Link.bind(context, "tcp://127.0.0.1:0", LINK) as link:
        yield Peer(link)


@pytest.fixture
def agent(scheduler):
    with start_agent("sim", scheduler, CONFIG) as process:
        process.endpoint = process.stdout.readline().strip()
        yield process
        process.kill()


@pytest.fixture
def client(context, agent):
    with Link.connect(context, agent.endpoint, LINK) as link:
        yield Peer(link)


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
    scheduler.until(  # a step that is under way keeps its blocks until it ends
        lambda m: (
            isinstance(m, Summary)
            and m.gpu.models
            and not m.gpu.models[0].running
            and m.gpu.kv_tokens_free == m.gpu.kv_tokens_total > 0
        )
    )


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
    with start_agent("tpu", scheduler, CONFIG) as process:
        assert process.wait(PATIENCE_S) != 0
