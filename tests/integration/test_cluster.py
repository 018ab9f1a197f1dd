"""A whole cluster of simulated GPUs: real processes, real sockets, real protocol."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq

import festina
from festina.config import AgentConfig, Config, DeploymentConfig, LinkConfig, SchedulerConfig
from festina.errors import (
    AgentLostError,
    BadRequestError,
    ConfigError,
    ContextLimitError,
    FestinaError,
    StartError,
    UnknownModelError,
    WeightsError,
)
from festina.messages import FRAME_BYTES_MAX, Cancel, Failed, Generate, Ping, Submit, decode, encode
from festina.runtime.gpu_spec import DEVICES_MAX, GpuSpec, parse_gpus
from festina.runtime.protocol.client_effects import ClientLimits
from festina.types import Slo

CONFIG = Config(
    gpus="sim:2",
    deployments=(
        DeploymentConfig(
            name="chat",
            weights="sim:llama-8b",
            slo=Slo(5000.0, 500.0),
            context_tokens=512,
            kv_tokens=4096,
            pace=0.0,
        ),
    ),
    link=LinkConfig(heartbeat_s=0.25, missed_max=8),
    scheduler=SchedulerConfig(endpoint="tcp://127.0.0.1:0"),
    agent=AgentConfig(client_timeout_s=1.0),
)


def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def cluster() -> Iterator[festina.Cluster]:
    with festina.Cluster(CONFIG) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: festina.Cluster) -> Iterator[festina.Client]:
    with festina.Client(cluster.endpoint, link=CONFIG.link) as client:
        yield client
        assert cluster.deaths() == ()


def requests_held(client: festina.Client) -> int:
    return sum(
        model.running + model.waiting
        for agent in client.cluster().agents
        for model in agent.summary.models
    )


def test_many_streams_at_once_complete(cluster: festina.Cluster):
    async def ask_all() -> list[festina.Completion]:
        async with festina.AsyncClient(cluster.endpoint, link=CONFIG.link) as client:
            streams = [
                client.generate("chat", token_ids=[i % 200 + 1] * 20, max_tokens=10 + i % 5)
                for i in range(40)
            ]
            completions = await asyncio.gather(*(stream.completion() for stream in streams))
            assert client.counters.duplicates == client.counters.gaps == 0
            return completions

    completions = asyncio.run(ask_all())
    assert [len(c.token_ids) for c in completions] == [c.usage.output_tokens for c in completions]
    assert {completion.agent for completion in completions} <= {"sim0", "sim1"}
    assert all(completion.usage.energy_j > 0 for completion in completions)


@pytest.mark.parametrize(
    ("model", "options", "kind", "field"),
    [
        ("nobody", {"prompt": "hello"}, UnknownModelError, "model"),
        ("chat", {"token_ids": [1] * 500, "max_tokens": 100}, ContextLimitError, "input_tokens"),
        ("chat", {"prompt": "a" * 5000, "max_tokens": 10}, ContextLimitError, "text"),
        ("chat", {"prompt": "a", "slo": Slo(-1.0, 1.0)}, BadRequestError, "slo.ttft_ms"),
        ("chat", {"prompt": "a", "slo": Slo(1.0, float("nan"))}, BadRequestError, "slo.tbt_ms"),
        ("chat", {"token_ids": [10**6]}, BadRequestError, "token_ids"),
    ],
)
def test_a_bad_request_is_a_typed_error_and_disturbs_no_other(
    client: festina.Client, model: str, options: dict, kind: type[FestinaError], field: str
):
    good = client.generate("chat", prompt="hello", max_tokens=30)
    with pytest.raises(kind) as caught:
        client.generate(model, **options).completion()
    assert caught.value.field == field
    assert len(good.completion().token_ids) == 30


@pytest.mark.parametrize("target", ["scheduler", "agent"])
@pytest.mark.parametrize(
    "frame",
    [b"", b"\x00", b"\x07rest", b"\x01\xc1", encode(Ping(1))[:-1], b"\x01" + b"\x91" * 50_000],
    ids=["empty", "version 0", "version 7", "no msgpack", "truncated", "nested"],
)
def test_a_malformed_frame_is_answered_with_a_typed_error(
    cluster: festina.Cluster, client: festina.Client, target: str, frame: bytes
):
    endpoint = cluster.endpoint
    good = client.generate("chat", prompt="hello", max_tokens=30)
    if target == "agent":
        endpoint = placed_endpoint(cluster)
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(endpoint)
        stranger.send(frame)
        assert stranger.poll(5000)
        answer = decode(stranger.recv())
    assert isinstance(answer, Failed)
    assert answer.error.code in ("protocol", "protocol_version")
    assert answer.error.field
    assert len(good.completion().token_ids) == 30


def placed_endpoint(cluster: festina.Cluster) -> str:
    """Where some agent listens."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(cluster.endpoint)
        socket.send(encode(Submit("probe", "chat", 1, 1)))
        assert socket.poll(5000)
        return decode(socket.recv()).endpoint


def test_an_oversized_frame_disturbs_nobody(cluster: festina.Cluster, client: festina.Client):
    good = client.generate("chat", prompt="hello", max_tokens=30)
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(cluster.endpoint)
        stranger.send(b"\x01" + bytes(FRAME_BYTES_MAX))
        assert not stranger.poll(300)
    assert len(good.completion().token_ids) == 30


def test_a_client_that_vanishes_frees_what_it_held(
    cluster: festina.Cluster, client: festina.Client
):
    with zmq.Context() as context:
        scheduler, agent = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
        scheduler.connect(cluster.endpoint)
        scheduler.send(encode(Submit("gone", "chat", 4, 400)))
        assert scheduler.poll(5000)
        placed = decode(scheduler.recv())
        agent.connect(placed.endpoint)
        generate = Generate(
            "gone", "chat", placed.ticket, placed.epoch, 400, 0.0, token_ids=(1, 2, 3, 4), pace=1.0
        )
        agent.send(encode(generate))
        assert agent.poll(5000)
        eventually(lambda: requests_held(client) == 1)
        scheduler.close(linger=0)
        agent.close(linger=0)
    eventually(lambda: requests_held(client) == 0)


def test_a_cancelled_request_frees_what_it_held(client: festina.Client):
    with client.generate("chat", prompt="hello", max_tokens=400, pace=1.0) as stream:
        next(iter(stream))
    eventually(lambda: requests_held(client) == 0)


def test_an_agent_that_is_killed_ends_its_requests_if_they_may_not_be_resumed():
    limits = ClientLimits(resumptions_max=0)
    with (
        festina.Cluster(CONFIG) as cluster,
        festina.Client(cluster.endpoint, link=CONFIG.link, limits=limits) as client,
    ):
        streams = [
            client.generate("chat", prompt="hello", max_tokens=400, pace=1.0) for _ in range(6)
        ]
        for stream in streams:
            next(iter(stream))
        busy: set[str] = set()

        def all_run() -> bool:
            running = {
                agent.agent: sum(model.running for model in agent.summary.models)
                for agent in client.cluster().agents
            }
            busy.update(name for name, count in running.items() if count)
            return sum(running.values()) == len(streams)

        eventually(all_run)
        for name in busy:
            os.kill(cluster.pids[name], signal.SIGKILL)
        for stream in streams:
            with pytest.raises(AgentLostError):
                stream.completion()
        assert {death.name for death in cluster.deaths()} == busy
        left = {"sim0", "sim1"} - busy
        eventually(lambda: {a.agent for a in client.cluster().agents} == left)
        if left:
            assert client.generate("chat", prompt="hello").completion().agent in left


def test_streams_of_an_agent_that_is_killed_go_on_at_another_one():
    with (
        festina.Cluster(CONFIG) as cluster,
        festina.Client(cluster.endpoint, link=CONFIG.link) as client,
    ):
        whole = client.generate("chat", prompt="hello", max_tokens=200).completion()
        streams = [client.generate("chat", prompt="hello", max_tokens=200) for _ in range(6)]
        for stream in streams:
            next(iter(stream))
        os.kill(cluster.pids[whole.agent], signal.SIGKILL)
        completions = [stream.completion() for stream in streams]
    assert {completion.text for completion in completions} == {whole.text}
    assert {completion.token_ids for completion in completions} == {whole.token_ids}
    assert all(completion.agent != whole.agent for completion in completions)
    resumptions = [completion.usage.resumptions for completion in completions]
    assert set(resumptions) <= {0, 1}
    assert 1 in resumptions


def test_streams_go_on_without_the_scheduler():
    with (
        festina.Cluster(CONFIG) as cluster,
        festina.Client(cluster.endpoint, link=CONFIG.link) as client,
    ):
        stream = client.generate("chat", prompt="hello", max_tokens=60)
        next(iter(stream))
        os.kill(cluster.pids["scheduler"], signal.SIGKILL)
        assert len(stream.completion().token_ids) == 60


def test_stopping_leaves_no_process():
    with festina.Cluster(CONFIG) as cluster:
        pids = list(cluster.pids.values())
        assert all(psutil.pid_exists(pid) for pid in pids)
    assert not any(psutil.pid_exists(pid) for pid in pids)


SERVE = """
import sys, msgspec, festina
from festina.config import Config
from festina.runtime.supervisor import interruptible
config = msgspec.json.decode(sys.argv[1], type=Config)
with interruptible(), festina.Cluster(config) as cluster:
    print(*cluster.pids.values(), flush=True)
    cluster.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_the_supervisor_ends_all_and_leaves_nothing(number: int):
    shared = set(Path("/dev/shm").iterdir())
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, msgspec.json.encode(CONFIG)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        pids = [int(pid) for pid in supervisor.stdout.readline().split()]
        assert len(pids) == 4
        supervisor.send_signal(number)
        try:
            supervisor.wait(20)
        finally:
            supervisor.kill()
    eventually(lambda: not any(is_running(pid) for pid in pids))
    assert set(Path("/dev/shm").iterdir()) <= shared


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("config", "kind", "field"),
    [
        (msgspec.structs.replace(CONFIG, gpus="tpu:2"), ConfigError, "gpus"),
        (msgspec.structs.replace(CONFIG, gpus="sim:NOSUCH:1"), FestinaError, None),
        (
            msgspec.structs.replace(
                CONFIG, scheduler=SchedulerConfig(endpoint="tcp://0.0.0.0:7000")
            ),
            ConfigError,
            "endpoint",
        ),
    ],
)
def test_a_cluster_that_cannot_start_says_why_and_leaves_nothing(
    config: Config, kind: type[FestinaError], field: str | None
):
    children = set(psutil.Process().children())
    with pytest.raises(kind) as caught, festina.Cluster(config):
        pass
    assert field is None or caught.value.field == field
    assert set(psutil.Process().children()) <= children


def test_a_model_that_cannot_be_preloaded_ends_the_start(tmp_path: Path):
    children = set(psutil.Process().children())
    absent = DeploymentConfig(name="chat", weights="smollm2-135m", preload=True)
    config = msgspec.structs.replace(
        CONFIG, gpus="cpu:2", deployments=(absent,), models_dir=str(tmp_path)
    )
    with pytest.raises(WeightsError, match="smollm2-135m"), festina.Cluster(config):
        pass
    assert set(psutil.Process().children()) <= children


def test_a_start_has_a_bound():
    with pytest.raises(StartError), festina.Cluster(CONFIG, start_timeout_s=0.0):
        pass


def test_devices_are_named_and_numbered():
    assert parse_gpus("cpu:2, sim:H100-SXM5-80GB:1,sim") == (
        GpuSpec("cpu0", "cpu"),
        GpuSpec("cpu1", "cpu"),
        GpuSpec("sim0", "sim:H100-SXM5-80GB"),
        GpuSpec("sim1", "sim"),
    )


def test_gpus_are_named_by_their_ordinals():
    assert parse_gpus("sim,cuda:2,cuda:0", lambda: 3) == (
        GpuSpec("sim0", "sim"),
        GpuSpec("cuda2", "cuda:2"),
        GpuSpec("cuda0", "cuda:0"),
    )
    assert parse_gpus("cuda:all", lambda: 2) == (
        GpuSpec("cuda0", "cuda:0"),
        GpuSpec("cuda1", "cuda:1"),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cuda:3", "no GPU cuda:3 among the 3"),
        ("cuda:all,cuda:1", "names a GPU twice"),
        ("cuda:x", "not a device"),
        ("cuda", "not a device"),
    ],
)
def test_gpus_that_are_not_there_or_named_twice_are_refused(text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        parse_gpus(text, lambda: 3)


@pytest.mark.parametrize(
    "text",
    ["", "cpu:", "cpu:0", "gpu:1", "cpu:x:1", f"sim:{DEVICES_MAX + 1}", "cpu:2,,sim", "sim:-1"],
)
def test_a_specification_of_another_form_is_refused(text: str):
    with pytest.raises(ConfigError) as caught:
        parse_gpus(text)
    assert caught.value.field == "gpus"


def test_cancel_of_an_unknown_request_is_ignored(cluster: festina.Cluster):
    endpoint = placed_endpoint(cluster)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        socket.send(encode(Cancel("nobody")))
        assert not socket.poll(200)
