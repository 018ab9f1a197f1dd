"""Real processes die, hang and come back: streams go on, schedulers take over, health tells."""

import asyncio
import os
import signal
import time

import httpx
import psutil
import pytest
from live_cluster import HEARTBEAT_S, LINK, eventually, sim_config, supervised
from msgspec.structs import replace

import festina
from festina.config import GatewayConfig
from festina.errors import FestinaError
from festina.runtime.protocol.client_effects import ClientLimits
from festina.runtime.supervisor import Death


def client_of(cluster: festina.Cluster) -> festina.Client:
    return festina.Client(cluster.endpoint, standby_endpoint=cluster.standby_endpoint, link=LINK)


def agents(client: festina.Client) -> dict[str, float]:
    """Silence of each agent, seconds."""
    return {agent.agent: agent.silent_ms / 1e3 for agent in client.cluster().agents}


def test_a_scheduler_that_is_started_again_knows_all_agents():
    with supervised(sim_config()) as (cluster, restarts), client_of(cluster) as client:
        os.kill(cluster.pids["scheduler"], signal.SIGKILL)
        eventually(lambda: len(restarts) == 1)
        assert client.generate("chat", prompt="hello", retries=5).completion().text
        eventually(lambda: agents(client).keys() == {"sim0", "sim1"})
        assert restarts[0].death == Death("scheduler", -9)


def test_a_standby_takes_over_and_leaves_the_place_to_nobody_while_it_serves():
    with supervised(sim_config(standby=True)) as (cluster, restarts), client_of(cluster) as client:
        text = client.generate("chat", prompt="hello", retries=5).completion().text
        for name in ("scheduler", "standby", "scheduler"):
            os.kill(cluster.pids[name], signal.SIGKILL)
            assert client.generate("chat", prompt="hello", retries=5).completion().text == text
            died = len(restarts)
            eventually(lambda died=died: len(restarts) >= max(1, died))
            time.sleep(4 * HEARTBEAT_S)  # the next one dies when the other has settled
        assert len(restarts) == 3


def test_a_stopped_scheduler_is_stood_in_for_and_yields_when_it_goes_on():
    with supervised(sim_config(standby=True)) as (cluster, _), client_of(cluster) as client:
        client.generate("chat", prompt="hello", retries=5).completion()
        pid = cluster.pids["scheduler"]
        os.kill(pid, signal.SIGSTOP)
        try:
            assert client.generate("chat", prompt="hello", retries=5).completion().text
        finally:
            os.kill(pid, signal.SIGCONT)
        for _ in range(5):
            assert client.generate("chat", prompt="hello", retries=5).completion().text


def test_an_agent_that_hangs_leaves_rotation_and_comes_back():
    config = replace(sim_config(), gateway=GatewayConfig(http="127.0.0.1:0"))
    with supervised(config) as (cluster, restarts), client_of(cluster) as client:
        whole = client.generate("chat", prompt="hello", max_tokens=400).completion()
        pid = cluster.pids["sim0"]
        streams = [client.generate("chat", prompt="hello", max_tokens=400) for _ in range(8)]
        for stream in streams:
            next(iter(stream))
        os.kill(pid, signal.SIGSTOP)
        try:
            eventually(lambda: agents(client)["sim0"] > 2.5 * HEARTBEAT_S)
            health = httpx.get(f"{cluster.url}/health").json()
            assert (health["agents"], health["silent"]) == (1, ["sim0"])
            placed = [client.generate("chat", prompt="x").completion().agent for _ in range(4)]
            assert placed == ["sim1"] * 4
            completions = [stream.completion() for stream in streams]
        finally:
            os.kill(pid, signal.SIGCONT)
        assert {completion.text for completion in completions} == {whole.text}
        assert {completion.agent for completion in completions} == {"sim1"}
        eventually(lambda: agents(client).get("sim0", 99.0) < HEARTBEAT_S)
        eventually(lambda: httpx.get(f"{cluster.url}/health").json()["agents"] == 2)
        assert restarts == []


def test_the_gateway_goes_on_with_a_stream_whose_agent_dies():
    config = replace(sim_config(), gateway=GatewayConfig(http="127.0.0.1:0"))
    with supervised(config) as (cluster, _), client_of(cluster) as client:
        whole = client.generate("chat", prompt="hello", max_tokens=400).completion()
        asked = {
            "model": "chat",
            "prompt": "hello",
            "max_tokens": 400,
            "stream": True,
            "temperature": 0,
        }
        url = f"{cluster.url}/v1/completions"
        killed, text = False, ""
        with httpx.stream("POST", url, json=asked, timeout=30) as answer:
            for line in answer.iter_lines():
                if not line.startswith("data: {"):
                    continue
                text += httpx.Response(200, text=line[6:]).json()["choices"][0]["text"]
                if len(text) > 20 and not killed:
                    killed = True
                    for name in ("sim0", "sim1"):
                        os.kill(cluster.pids[name], signal.SIGKILL)
        assert text == whole.text


def test_a_process_that_cannot_start_is_tried_again_and_again():
    with supervised(sim_config()) as (cluster, restarts), client_of(cluster) as client:
        for number in range(1, 4):
            os.kill(cluster.pids["sim0"], signal.SIGKILL)
            eventually(lambda number=number: len(restarts) == number)
            pid = eventually(lambda: cluster.deaths() == ()) and cluster.pids["sim0"]
            assert psutil.pid_exists(pid)
        eventually(lambda: agents(client).keys() == {"sim0", "sim1"})
        pauses = [restart.pause_s for restart in restarts]
        assert pauses == sorted(pauses)
        assert pauses[0] == 0.0
        assert pauses[-1] > 0.0


def test_a_client_that_is_killed_frees_what_it_held():
    async def hold(endpoint: str) -> None:
        async with festina.AsyncClient(endpoint, link=LINK) as client:
            streams = [
                client.generate("chat", prompt="x", max_tokens=1500, retries=9) for _ in range(4)
            ]
            for stream in streams:
                async for _ in stream:
                    break
            os.kill(os.getpid(), signal.SIGKILL)

    with supervised(sim_config()) as (cluster, _), client_of(cluster) as client:
        pid = os.fork()
        if pid == 0:
            asyncio.run(hold(cluster.endpoint))
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL

        def free() -> bool:
            found = client.cluster().agents
            return all(
                agent.summary.kv_tokens_free == agent.summary.kv_tokens_total
                and not any(model.running + model.waiting for model in agent.summary.models)
                for agent in found
            )

        eventually(free)


@pytest.mark.parametrize("resumptions", [0, 8])
def test_without_any_agent_left_each_request_ends_with_one_typed_error(resumptions: int):
    limits = ClientLimits(resumptions_max=resumptions, resume_s=1.0)
    with (
        festina.Cluster(sim_config(1)) as cluster,
        festina.Client(cluster.endpoint, link=LINK, limits=limits) as client,
    ):
        streams = [
            client.generate("chat", prompt="hello", max_tokens=1000, retries=9) for _ in range(3)
        ]
        for stream in streams:
            next(iter(stream))
        os.kill(cluster.pids["sim0"], signal.SIGKILL)
        for stream in streams:
            with pytest.raises(FestinaError) as caught:
                stream.completion()
            assert caught.value.code == "agent_lost"
