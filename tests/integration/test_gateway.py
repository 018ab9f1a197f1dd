"""The gateway as a process of a simulated cluster: OpenAI's own client, and raw HTTP."""

import socket
import threading

import httpx
import openai
import pytest

from festina.cli import main as command_line
from festina.config import Config, DeploymentConfig, GatewayConfig, SchedulerConfig
from festina.errors import ConfigError
from festina.runtime.supervisor import Cluster
from festina.types import Slo

KEY = "sk-the-key-of-these-tests"
HELLO = [{"role": "user", "content": "hello"}]


def settings(http, keys_file=""):
    return Config(
        gpus="sim:H100-SXM5-80GB:1",
        deployments=(
            DeploymentConfig(
                name="chat", weights="sim:llama-8b", slo=Slo(5000.0, 1000.0), pace=0.0
            ),
        ),
        scheduler=SchedulerConfig(endpoint="tcp://127.0.0.1:0"),
        gateway=GatewayConfig(http=http, keys_file=keys_file),
    )


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    with Cluster(settings("127.0.0.1:0", str(keys))) as cluster:
        assert "gateway" in cluster.pids
        yield cluster.url
    assert cluster.url == ""


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def http(url):
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
        yield http


def test_openais_client_lists_the_models(client):
    assert [model.id for model in client.models.list()] == ["chat"]
    assert client.models.retrieve("chat").object == "model"


def test_openais_client_gets_a_whole_chat(client):
    answer = client.chat.completions.create(
        model="chat",
        messages=HELLO,
        max_completion_tokens=5,
        seed=1,
        extra_body={"festina": {"pace": 0}},
    )
    assert len(answer.choices[0].message.content) == 5
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5
    assert answer.usage.energy_joules > 0
    assert answer.usage.energy_source == "modelled"


def test_openais_client_streams_two_choices_and_the_usage(client):
    stream = client.chat.completions.create(
        model="chat", messages=HELLO, max_tokens=6, n=2, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    texts, reasons, usages = ["", ""], [None, None], []
    for chunk in stream:
        if chunk.usage is not None:
            usages.append(chunk.usage)
            assert chunk.choices == []
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason
    assert [len(text) for text in texts] == [6, 6]
    assert reasons == ["length", "length"]
    assert [usage.completion_tokens for usage in usages] == [12]


def test_openais_client_completes_token_ids(client):
    answer = client.completions.create(model="chat", prompt=[72, 105], max_tokens=3)
    assert answer.usage.prompt_tokens == 2
    assert len(answer.choices[0].text) == 3


def test_openais_client_knows_our_errors(client, url):
    ask = client.chat.completions.create
    with pytest.raises(openai.NotFoundError):
        ask(model="nobody", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(model="chat", messages=HELLO, logprobs=True)
    assert caught.value.param == "logprobs"  # a simulated engine has no logits
    with pytest.raises(openai.BadRequestError) as caught:
        ask(model="chat", messages=HELLO, max_tokens=100_000)
    assert (caught.value.param, caught.value.code) == ("max_tokens", "context_length_exceeded")
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_health_needs_no_key_and_the_rest_does(url):
    assert httpx.get(f"{url}/health").json() == {"status": "ok", "agents": 1, "silent": []}
    assert httpx.get(f"{url}/metrics").status_code == 401


@pytest.mark.parametrize("head", [b"x-long: ", b"GET /"])
def test_a_head_without_end_is_cut_off(url, head):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall((b"" if head[:3] == b"GET" else b"GET / HTTP/1.1\r\n") + head)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(b"x" * 100_000_000)
    assert httpx.get(f"{url}/health").status_code == 200


def test_long_bodies_and_many_requests_on_one_connection_are_served(http):
    for length in (10, 1900, 10):
        body = {"model": "chat", "prompt": "a" * length, "max_tokens": 2}
        assert http.post("/v1/completions", json=body).json()["usage"]["prompt_tokens"] == length


def sample(http, name):
    """The value of one time series, None if it is not there."""
    lines = http.get("/metrics").text.splitlines()
    found = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")]
    return float(found[0]) if found else None


def test_a_client_that_hangs_up_frees_the_gpu(http):
    body = {"model": "chat", "prompt": "a", "max_tokens": 2000, "stream": True}
    with http.stream("POST", "/v1/completions", json=body) as response:
        assert next(response.iter_lines()).startswith("data: {")
    cancelled = 'festina_request_failure_total{code="cancelled",model_name="chat"}'
    running = 'festina_num_requests_running{model_name="chat"}'
    for _ in range(100):
        if sample(http, cancelled) == 1.0 and sample(http, running) == 0.0:
            return
        threading.Event().wait(0.1)
    raise AssertionError("it went on")


def test_metrics_come_from_the_cluster_and_the_requests(client, http):
    client.completions.create(model="chat", prompt="hello", max_tokens=3)
    assert sample(http, "festina_scheduler_up") == 1
    assert sample(http, "festina_gpus_awake") == 1
    assert sample(http, 'festina_power_watts{gpu="sim0",source="modelled"}') > 0
    labels = 'gpu="sim0",model_name="chat",source="modelled"'
    assert sample(http, f"festina_request_energy_joules_total{{{labels}}}") > 0
    name = "festina_energy_joules_total"
    for _ in range(100):  # an agent tells its account once a second
        if sample(http, name + '{gpu="sim0",model="chat",phase="decode",source="modelled"}') > 0:
            break
        threading.Event().wait(0.1)
    for model, phase in (("chat", "prefill"), ("chat", "decode"), ("", "idle")):
        labels = f'gpu="sim0",model="{model}",phase="{phase}",source="modelled"'
        assert sample(http, f"{name}{{{labels}}}") > 0


def test_a_gateway_that_cannot_listen_ends_the_start_and_leaves_no_process(url):
    with pytest.raises(ConfigError, match="cannot listen"), Cluster(settings(url[7:])):
        pass


def test_serve_refuses_to_open_to_other_machines_without_keys(monkeypatch, capsys):
    arguments = ["serve", "--gpus", "sim:1", "--deploy", "chat=sim:llama-8b", "--http", "0.0.0.0:0"]
    monkeypatch.setattr("sys.argv", ["festina", *arguments])
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    assert caught.value.code == 2
    assert "gateway.http" in capsys.readouterr().err
