"""A real agent whose engine's process is killed, stopped and parked: no token is lost."""

import os
import signal

import pytest
import zmq
from agent_process import LINK, PATIENCE_S, Peer, generate, is_end, register, start_agent
from gguf_files import write_gguf
from processes import children_of, is_running, open_descriptors, wait_for

from festina.config import AgentConfig, Config, CpuPowerConfig, DeploymentConfig
from festina.messages import (
    Failed,
    Finished,
    Leave,
    Load,
    Park,
    Register,
    Summary,
    Tokens,
    Wake,
    Welcome,
)
from festina.runtime.transport import Link
from festina.types import Sampling, Slo

LOOSE = Slo(60_000.0, 10_000.0)
ENDLESS = Sampling(ignore_eos=True)
PROMPT = "the quick brown fox jumps over the lazy dog"
TOKENS = 60
STEP_TIMEOUT_S = 1.0


class Served:
    """An agent, its scheduler and a client."""

    def __init__(self, process, scheduler, client):
        self.process = process
        self.scheduler = scheduler
        self.client = client
        self.agent, self.registered = register(scheduler)

    def send(self, request_id, text=PROMPT, max_tokens=TOKENS, **fields):
        fields = {"text": text, "max_tokens": max_tokens, "sampling": ENDLESS, **fields}
        generate(self.client, self.registered, request_id, **fields)

    def tokens_of(self, request_id):
        """Its output; every index once and in order."""
        end = self.end_of(request_id)
        assert isinstance(end, Finished), end
        mine = [m for _, m in self.client.received if is_tokens(m, request_id)]
        assert [m.index for m in mine] == list(range(len(mine)))
        assert len(mine) == end.usage.output_tokens
        return [token for m in mine for token in m.token_ids]

    def end_of(self, request_id):
        ended = is_end(request_id)
        seen = [m for _, m in self.client.received if ended(m)]
        return seen[0] if seen else self.client.until(ended)[1]

    def until_token(self, request_id, index):
        self.client.until(lambda m: is_tokens(m, request_id) and m.index == index)

    def order(self, order):
        """Say it, once all that was heard before is out of the way."""
        while list(self.scheduler.link.receive(256)):
            pass
        self.scheduler.link.send(order, self.agent)

    def until_summary(self, wanted):
        def fits(message):
            if isinstance(message, Register):  # the scheduler has been mute for long
                self.scheduler.link.send(Welcome(1), self.agent)
            return isinstance(message, Summary) and wanted(message.gpu)

        return self.scheduler.until(fits)[1].gpu

    @property
    def engine_pid(self):
        """The child that computes: the one that has been told what to be, the largest."""
        return wait_for(lambda: children_of(self.process.pid))[-1]


def is_tokens(message, request_id):
    return isinstance(message, Tokens) and message.request_id == request_id


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("weights") / "tiny.gguf")


def config(weights, **agent):
    chat = DeploymentConfig(
        name="chat", weights=str(weights), slo=LOOSE, pace=0.0, kv_tokens=1024, keep_alive_s=0.0
    )
    agent = {"step_timeout_s": STEP_TIMEOUT_S, "chunk_tokens": 16, **agent}
    return Config(deployments=(chat,), link=LINK, agent=AgentConfig(**agent))


@pytest.fixture
def serve(weights):
    """Starts an agent with settings; at the end it must leave nothing behind."""
    with zmq.Context() as context, Link.bind(context, "tcp://127.0.0.1:0", LINK) as link:
        scheduler = Peer(link)
        started = []

        def start(**agent):
            process = start_agent("cpu", scheduler, config(weights, **agent))
            endpoint = process.stdout.readline().strip()
            client = Link.connect(context, endpoint, LINK)
            served = Served(process, scheduler, Peer(client))
            started.append(served)
            return served

        yield start
        for served in started:
            end(served)


def end(served):
    left = children_of(served.process.pid) if served.process.poll() is None else []
    served.process.terminate()
    with served.process:
        served.process.wait(PATIENCE_S)
    served.client.link.close()
    wait_for(lambda: not any(map(is_running, left)))


@pytest.fixture(scope="module")
def expected(weights):
    """What the model answers undisturbed."""
    from engine_driver import MODEL, generate, runs_of

    from festina.engine.cpu.engine import CpuEngine

    engine = CpuEngine()
    deployment = DeploymentConfig(name=MODEL, weights=str(weights), kv_tokens=1024)
    ids = engine.load(deployment).tokenizer.encode(PROMPT)
    return generate(engine, runs_of([ids], TOKENS), TOKENS)[0]


def test_an_undisturbed_request_gets_what_the_engine_says(serve, expected):
    served = serve()
    served.send("r")
    assert served.tokens_of("r") == expected


def test_the_process_is_killed_in_the_middle_of_decodes(serve, expected):
    served = serve()
    for number in range(3):
        served.send(f"r{number}")
    served.until_token("r2", 9)
    os.kill(served.engine_pid, signal.SIGKILL)
    outputs = [served.tokens_of(f"r{number}") for number in range(3)]
    assert outputs == [expected] * 3
    assert sum(served.end_of(f"r{number}").usage.preemptions for number in range(3)) > 0


def test_the_process_is_killed_in_the_middle_of_a_prefill(serve, expected):
    """Stopped before, so that the kill meets a chunk of the prompt under way."""
    served = serve()
    served.order(Load("chat"))
    served.until_summary(lambda gpu: gpu.kv_tokens_total > 0)
    pid = served.engine_pid
    os.kill(pid, signal.SIGSTOP)
    served.send("r")
    served.until_summary(lambda gpu: gpu.models and gpu.models[0].waiting == 1)
    os.kill(pid, signal.SIGKILL)
    assert served.tokens_of("r") == expected


def test_a_process_that_is_stopped_is_replaced(serve, expected):
    served = serve()
    served.send("r")
    served.until_token("r", 5)
    pid = served.engine_pid
    os.kill(pid, signal.SIGSTOP)
    assert served.tokens_of("r") == expected
    assert not is_running(pid)


def test_a_process_that_dies_idle_is_replaced_unasked(serve, expected):
    served = serve()
    served.send("r")
    served.tokens_of("r")
    pid = served.engine_pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: [child for child in children_of(served.process.pid) if child != pid])
    served.send("again")
    assert served.tokens_of("again") == expected


def test_it_parks_on_order_and_a_request_wakes_it(serve, expected):
    served = serve()
    served.send("r")
    served.until_token("r", 3)
    before = served.engine_pid
    served.order(Park())
    parked = served.until_summary(lambda gpu: gpu.parked)
    assert served.tokens_of("r") == expected  # it parked after its end
    assert parked.models == ()
    assert not is_running(before)
    power = CpuPowerConfig()  # a mean over a second
    served.until_summary(lambda gpu: gpu.parked and gpu.power_w == power.parked_w)
    served.send("again")
    assert served.tokens_of("again") == expected
    assert not served.until_summary(lambda gpu: gpu.models).parked


@pytest.mark.parametrize("order", [Wake(), Load("chat")])
def test_orders_wake_it(serve, expected, order):
    served = serve()
    served.order(Park())
    served.until_summary(lambda gpu: gpu.parked)
    served.order(order)
    served.until_summary(lambda gpu: not gpu.parked)
    served.send("r")
    assert served.tokens_of("r") == expected


@pytest.mark.parametrize(
    "failpoint",
    [
        "engine.receive.Step=kill@25",  # a step that is never computed
        "engine.send.Stepped=kill@25",  # one that is, and never told
        "engine.receive.Step=stop@40",
    ],
)
def test_processes_that_die_again_and_again_cost_no_token(serve, expected, monkeypatch, failpoint):
    """Each process dies at its own n-th step; of each request's tokens some come from every one."""
    monkeypatch.setenv("FESTINA_FAILPOINTS", failpoint)
    served = serve(engine_failures_max=100)
    for number in range(2):
        served.send(f"r{number}")
    assert [served.tokens_of(f"r{number}") for number in range(2)] == [expected] * 2
    assert served.end_of("r1").usage.preemptions > 0


def test_a_request_under_which_every_process_dies_ends_and_the_agent_goes_on(
    serve, expected, monkeypatch
):
    monkeypatch.setenv("FESTINA_FAILPOINTS", "engine.receive.Step=kill@2")
    served = serve(engine_failures_max=100)
    served.send("poison")
    end = served.end_of("poison")
    assert isinstance(end, Failed)
    assert end.error.code == "engine_lost"
    served.send("short", text="a", max_tokens=1)  # one step
    assert len(served.tokens_of("short")) == 1


def test_parks_and_kills_leave_no_descriptors(serve, expected):
    served = serve(engine_failures_max=100)

    def cycle(number):
        served.order(Park())
        served.until_summary(lambda gpu: gpu.parked)
        served.send(f"r{number}")
        served.until_token(f"r{number}", 3)
        os.kill(served.engine_pid, signal.SIGKILL)
        assert served.tokens_of(f"r{number}") == expected

    shared = sorted(os.listdir("/dev/shm"))
    cycle(0)
    cycle(1)  # with weights that are hot now
    before = open_descriptors(served.process.pid)
    for number in range(2, 5):
        cycle(number)
    assert open_descriptors(served.process.pid) == before
    assert sorted(os.listdir("/dev/shm")) == shared


def test_after_too_many_losses_the_agent_leaves_and_says_why(serve):
    served = serve(engine_failures_max=2)
    served.send("r", max_tokens=80)
    served.until_token("r", 1)
    first = served.engine_pid
    os.kill(first, signal.SIGKILL)
    second = wait_for(lambda: [c for c in children_of(served.process.pid) if c != first])[-1]
    os.kill(second, signal.SIGKILL)
    end = served.end_of("r")
    assert isinstance(end, Failed)
    assert end.error.code == "agent_lost"
    served.scheduler.until(lambda m: isinstance(m, Leave))
    assert served.process.wait(PATIENCE_S) != 0


def test_an_engine_ends_with_an_agent_that_is_killed(serve):
    served = serve()
    served.send("r")
    served.tokens_of("r")
    pid = served.engine_pid
    os.kill(pid, signal.SIGSTOP)
    served.process.kill()
    wait_for(lambda: not is_running(pid))
