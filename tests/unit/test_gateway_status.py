"""The state of the cluster for the live page, and the page itself."""

import json

import pytest
from gateway_backend import CLUSTER, CONFIG, RoteBackend, ask
from msgspec.structs import replace

from festina.errors import SchedulerLostError
from festina.gateway.saved import Saved
from festina.gateway.status import HISTORY_S, SAMPLE_S, History, Shares, status_of

CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
KEY = "a-key-of-sixteen-or-more"


def with_gpu(**changes):
    agent = CLUSTER.agents[0]
    silent_ms = changes.pop("silent_ms", agent.silent_ms)
    summary = replace(agent.summary, **changes)
    return replace(CLUSTER, agents=(replace(agent, summary=summary, silent_ms=silent_ms),))


def test_the_state_of_the_cluster_is_told():
    body = ask(RoteBackend(), "/status", before=[("/v1/chat/completions", CHAT)]).json()
    (gpu,) = body["gpus"]
    assert (gpu["name"], gpu["state"], gpu["power_w"]) == ("gpu0", "awake", 300.0)
    assert gpu["kv_used"] == 0.75
    assert gpu["models"] == ["chat"]
    chat = body["models"][0]
    assert (chat["name"], chat["gpus"], chat["running"], chat["waiting"]) == ("chat", 1, 3, 2)
    assert (chat["attainment"], chat["joules_per_token"]) == (1.0, 0.125)
    assert body["models"][1]["attainment"] is None
    assert (body["placed"], body["refused"]) == (5, 2)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "awake"),
        ({"draining": True}, "draining"),
        ({"parked": True, "draining": True}, "parked"),
        ({"silent_ms": 1e6, "parked": True}, "silent"),
    ],
)
def test_a_gpu_has_one_state(changes, state):
    status = status_of(with_gpu(**changes), {}, History(Saved()), 3.0, 0.0)
    assert status.gpus[0].state == state


def test_a_gpu_without_a_kv_cache_uses_none():
    status = status_of(
        with_gpu(kv_tokens_total=0, kv_tokens_free=0), {}, History(Saved()), 3.0, 0.0
    )
    assert status.gpus[0].kv_used == 0.0


def test_the_history_is_an_hour_long_and_no_longer():
    history = History(Saved())
    for number in range(int(HISTORY_S / SAMPLE_S) + 5):
        history.add(CLUSTER, {"chat": Shares(3, 4, 1.0, 8)}, number * SAMPLE_S)
    samples = list(history)
    assert len(samples) == HISTORY_S / SAMPLE_S
    assert samples[0].t_s == 5 * SAMPLE_S
    assert (samples[-1].power_w, samples[-1].awake, samples[-1].attainment) == (300.0, 1, 0.75)
    assert (samples[-1].clock_saved_j, samples[-1].parking_saved_j) == (21.0, 9.0)


def test_tokens_of_an_unloaded_model_stay_counted():
    history = History(Saved())
    chat = replace(CLUSTER.agents[0].summary.models[0], output_tokens_total=70)
    for models, epoch in (((chat,), 1), ((), 1), ((chat,), 1), ((chat,), 2)):
        cluster = with_gpu(models=models)
        agent = replace(cluster.agents[0], epoch=epoch)
        history.add(replace(cluster, agents=(agent,)), {}, 0.0)
    assert [sample.tokens for sample in history] == [70, 70, 70, 140]


def test_before_any_request_nothing_was_attained_or_missed():
    history = History(Saved())
    history.add(CLUSTER, {}, 0.0)
    assert next(iter(history)).attainment is None


def test_without_a_scheduler_the_state_is_an_error():
    backend = RoteBackend()
    backend.cluster_answer = SchedulerLostError("gone")
    answer = ask(backend, "/status")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "scheduler_lost"


def test_the_page_is_open_and_what_it_shows_is_not():
    assert ask(RoteBackend(), "/", keys=[KEY]).status_code == 200
    assert ask(RoteBackend(), "/status", keys=[KEY]).status_code == 401
    headers = {"authorization": f"Bearer {KEY}"}
    assert ask(RoteBackend(), "/status", keys=[KEY], headers=headers).status_code == 200


def test_the_page_needs_nothing_from_the_network():
    answer = ask(RoteBackend(), "/")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    urls = [part for part in answer.text.split('"') if part.startswith(("http", "//"))]
    assert urls == ["http://www.w3.org/2000/svg"] * len(urls)  # a name, not an address


def test_names_of_models_cannot_become_markup():
    """The page sets text, never HTML."""
    page = ask(RoteBackend(), "/").text
    assert "innerHTML" not in page
    assert "insertAdjacentHTML" not in page
    assert "document.write" not in page
    assert json.dumps(CONFIG.deployments[0].name) not in page
