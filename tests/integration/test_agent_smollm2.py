"""A real agent process that serves real weights over sockets."""

import pytest
import zmq
from agent_process import LINK, Peer, generate, is_end, register, start_agent

from festina.config import Config, DeploymentConfig
from festina.engine import models
from festina.errors import FestinaError
from festina.messages import ChatTurn, Failed, Finished, Tokens
from festina.runtime.transport import Link
from festina.types import FinishReason, Sampling, Slo

WEIGHTS = "smollm2-135m"
LOOSE = Slo(60_000.0, 10_000.0)


@pytest.fixture(scope="module")
def weights():
    try:
        return models.pull(WEIGHTS)
    except FestinaError as error:
        pytest.skip(f"no weights: {error}")


@pytest.fixture(scope="module")
def served(weights):
    """(scheduler, client, registration) of one CPU agent with two deployments."""
    config = Config(
        deployments=tuple(
            DeploymentConfig(
                name=name,
                weights=str(weights),
                slo=LOOSE,
                pace=pace,
                context_tokens=512,
                kv_tokens=kv_tokens,
            )
            for name, pace, kv_tokens in (("chat", 0.0, 2048), ("tight", 0.0, 160))
        ),
        link=LINK,
    )
    with zmq.Context() as context, Link.bind(context, "tcp://127.0.0.1:0", LINK) as link:
        scheduler = Peer(link)
        with start_agent("cpu", scheduler, config) as process:
            endpoint = process.stdout.readline().strip()
            with Link.connect(context, endpoint, LINK) as client:
                registered = register(scheduler)[1]
                yield scheduler, Peer(client), registered
            process.terminate()
            assert process.wait(30) == 0


def complete(served, request_id, **fields):
    _, client, registered = served
    generate(client, registered, request_id, **fields)
    _, end = client.until(is_end(request_id))
    assert isinstance(end, Finished), end
    return end, text_of(client, request_id, end)


def text_of(client, request_id, end):
    mine = [m for _, m in client.received if isinstance(m, Tokens) and m.request_id == request_id]
    assert [m.index for m in mine] == list(range(len(mine)))
    assert len(mine) == end.usage.output_tokens
    return "".join(m.text for m in mine) + end.text


def test_a_chat_gets_a_sensible_answer_and_its_joules(served):
    turns = (ChatTurn("user", "What is the capital of France? Answer in one sentence."),)
    end, text = complete(served, "paris", text="", turns=turns, max_tokens=28)
    assert "Paris" in text
    assert end.reason is FinishReason.STOP
    assert end.usage.energy_j > 0
    assert end.usage.energy_source == "modelled"


def test_greedy_output_is_the_same_alone_in_a_crowd_and_after_preemption(served):
    """The crowd shares a KV pool of 160 tokens, which does not hold it."""
    _, client, registered = served
    prompts = [f"Once upon a time there were {n} foxes" for n in ("two", "three", "ten", "nine")]
    alone = [
        complete(served, f"alone{i}", text=prompt, max_tokens=28)[1]
        for i, prompt in enumerate(prompts)
    ]
    ignore = Sampling(ignore_eos=True)
    for i in range(10):  # teaches short outputs, so that too many are let in
        complete(served, f"short{i}", model="tight", text="Hi", max_tokens=1, sampling=ignore)
    for i, prompt in enumerate(prompts):
        generate(client, registered, f"crowd{i}", model="tight", text=prompt, max_tokens=28)
    ends = {}
    while len(ends) < len(prompts):
        _, end = client.until(lambda m: isinstance(m, Finished | Failed))
        ends[end.request_id] = end
    assert sum(end.usage.preemptions for end in ends.values()) > 0
    crowd = [text_of(client, f"crowd{i}", ends[f"crowd{i}"]) for i in range(len(prompts))]
    assert crowd == alone
