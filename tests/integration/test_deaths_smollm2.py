"""Agents with real weights die in the middle of an answer: the text is the undisturbed one's."""

import os
import signal

import psutil
import pytest
from live_cluster import LINK, eventually, sim_config, supervised
from msgspec.structs import replace

import festina
from festina.config import DeploymentConfig
from festina.engine import models
from festina.errors import FestinaError
from festina.types import FinishReason, Sampling, Slo

TOKENS = 24


@pytest.fixture(scope="module")
def served():
    try:
        weights = models.pull("smollm2-135m")
    except FestinaError as error:
        pytest.skip(f"no weights: {error}")
    chat = DeploymentConfig(
        name="chat",
        weights=str(weights),
        slo=Slo(60_000.0, 10_000.0),
        context_tokens=512,
        kv_tokens=2048,
        pace=0.0,
        preload=True,
    )
    config = replace(sim_config(), gpus="cpu:2", deployments=(chat,))
    before = set(psutil.Process().children(recursive=True))
    with supervised(config) as (cluster, restarts):
        yield cluster, restarts
    left = set(psutil.Process().children(recursive=True)) - before
    assert not left


def running(client: festina.Client) -> str:
    """The agent that runs the only request."""
    for agent in client.cluster().agents:
        if any(model.running or model.waiting for model in agent.summary.models):
            return agent.agent
    return ""


ASKED = {
    "characters of many tokens": ("東京は日本の首都です。京都は", Sampling()),
    "draws": ("The sea in winter is", Sampling(temperature=0.8, top_p=0.95, seed=11)),
    "a stop text": ("One, two, three, four,", Sampling(stop=("eleven", ", respect"))),
}


@pytest.mark.parametrize("what", ASKED)
def test_the_text_goes_on_as_if_nothing_had_happened(served, what: str):
    cluster, restarts = served
    prompt, sampling = ASKED[what]
    asked = {"prompt": prompt, "sampling": sampling, "max_tokens": TOKENS, "retries": 50}
    with festina.Client(cluster.endpoint, link=LINK) as client:
        whole = client.generate("chat", **asked).completion()
        stream, killed, text, died = client.generate("chat", **asked), 0, "", len(restarts)
        for piece in stream:
            text += piece.text
            if piece.index in (3, 9) and killed < 2:
                killed += 1
                found: list[str] = []
                eventually(lambda found=found: found.append(running(client)) or bool(found[-1]))
                os.kill(cluster.pids[found[-1]], signal.SIGKILL)
        broken = stream.completion()
        eventually(lambda: len(restarts) >= died + killed)
    assert (broken.token_ids, text, broken.reason) == (whole.token_ids, whole.text, whole.reason)
    assert text == broken.text
    assert broken.usage.output_tokens == len(whole.token_ids)
    assert broken.usage.resumptions >= 1
    assert whole.reason is (FinishReason.STOP if sampling.stop else FinishReason.LENGTH)
