import asyncio
import json
import threading
from dataclasses import replace as replaced

import pytest
from gateway_backend import CLUSTER, CONFIG, MODELS, WORDS, RoteBackend, ask
from msgspec.structs import replace

from festina.errors import SchedulerLostError
from festina.gateway.answering import hang_up, send_stream
from festina.gateway.choices import Choices
from festina.gateway.metrics import Metrics
from festina.gateway.parameters import Reader
from festina.gateway.watch import GatewayWatch

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
KEY = "a-key-of-sixteen-or-more"


@pytest.fixture
def backend():
    return RoteBackend()


def events(response):
    """The stream's events, each checked for its frame."""
    *frames, rest = response.text.split("\n\n")
    assert rest == ""
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    texts = [frame.removeprefix("data: ") for frame in frames]
    assert texts[-1] == "[DONE]"
    return [json.loads(text) for text in texts[:-1]]


def test_a_whole_chat(backend):
    answer = ask(backend, CHAT, HELLO | {"model": "chat"}).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "chat"
    (choice,) = answer["choices"]
    assert choice["message"] == {
        "role": "assistant", "content": "".join(WORDS) + ".", "refusal": None,
    }  # fmt: skip
    assert choice["finish_reason"] == "stop"
    assert answer["usage"] == {
        "prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11,
        "energy_joules": 0.5, "energy_source": "modelled",
    }  # fmt: skip


def test_whole_texts_of_many_prompts_count_each_prompt_once(backend):
    answer = ask(backend, TEXT, {"model": "chat", "prompt": ["a", "b"], "n": 2}).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert [job.generate.text for job in backend.jobs] == ["a", "a", "b", "b"]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (14, 16)
    assert answer["usage"]["energy_joules"] == 2.0


def test_joules_of_different_provenance_are_not_added_up(backend):
    answer = ask(backend, TEXT, {"model": "mixed", "prompt": "a", "n": 2}).json()
    assert answer["usage"]["energy_joules"] is None
    assert answer["usage"]["energy_source"] == "mixed"


def test_a_streamed_chat_ends_with_the_usage(backend):
    wish = {"model": "chat", "stream": True, "stream_options": {"include_usage": True}}
    response = ask(backend, CHAT, HELLO | wish)
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, last = events(response)
    assert last["choices"] == []
    assert last["usage"]["energy_joules"] == 0.5
    assert all(chunk["usage"] is None for chunk in chunks)
    assert len({chunk["id"] for chunk in [*chunks, last]}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(choice["delta"]["content"] for choice in choices) == "".join(WORDS) + "."
    assert [choice["finish_reason"] for choice in choices] == [None] * 5 + ["stop"]


def test_a_stream_without_the_wish_has_no_usage(backend):
    chunks = events(ask(backend, TEXT, {"model": "chat", "prompt": "a", "stream": True}))
    assert not any("usage" in chunk for chunk in chunks)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "".join(WORDS) + "."


def test_a_stream_may_tell_the_usage_all_along(backend):
    wish = {"stream": True, "stream_options": {"continuous_usage_stats": True}}
    chunks = events(ask(backend, TEXT, {"model": "chat", "prompt": "a"} | wish))
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [1, 2, 3, 4, 4]
    assert {chunk["usage"]["prompt_tokens"] for chunk in chunks} == {7}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("busy", 429, "overloaded"),
        ("long", 400, "context_length_exceeded"),
        ("lost", 503, "agent_lost"),
        ("broken", 500, "engine"),
        ("nobody", 404, "model_not_found"),
    ],
)
def test_a_failure_before_the_first_token_has_its_status(backend, model, status, code, stream):
    response = ask(backend, CHAT, HELLO | {"model": model, "stream": stream})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert ("retry-after" in response.headers) == (status in (429, 503))


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/completions", b"{"), ("/nowhere", {}), ("/v1/models", {})]
)
def test_an_error_is_answered_without_a_thread(backend, monkeypatch, path, body):
    """Starlette runs handlers that are not coroutines in worker threads, and starts them."""

    def refuse(thread):
        raise AssertionError(f"{thread.name} is started")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    headers = {"content-type": "application/json"}
    assert ask(backend, path, body, headers=headers).status_code in (400, 404, 405)


def test_overload_tells_when_to_come_back(backend):
    headers = ask(backend, CHAT, HELLO | {"model": "busy"}).headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "1500")


def test_a_failure_in_the_middle_of_a_stream_is_told_in_it(backend):
    chunks = events(ask(backend, TEXT, {"model": "late", "prompt": "a", "stream": True, "n": 2}))
    assert chunks[-1]["error"]["code"] == "engine"
    assert all("error" not in chunk for chunk in chunks[:-1])
    assert len(backend.cancelled) == 1


def test_one_failed_choice_of_an_answer_cancels_the_others(backend):
    response = ask(backend, TEXT, {"model": "late", "prompt": "a", "n": 3})
    assert response.status_code == 500
    assert len(backend.cancelled) == 2


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "text/plain"}, b"{}", 415),
        ({"content-type": "application/json"}, b"{", 400),
        ({"content-type": "application/json"}, b" " * 2001, 413),
        ({"content-type": "application/json", "content-length": "9" * 40}, b"{}", 413),
    ],
)
def test_bodies_are_bounded_and_declared(backend, headers, body, status):
    assert ask(backend, CHAT, body, headers=headers).status_code == status
    assert backend.jobs == []


@pytest.mark.parametrize(
    ("path", "body", "status"), [("/v2", None, 404), (CHAT, None, 405), ("/v1/models/x", None, 404)]
)
def test_wrong_paths_and_methods_are_errors_in_the_same_shape(backend, path, body, status):
    response = ask(backend, path, body)
    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", f"Bearer {KEY[:-1]}", f"Basic {KEY}", f"Bearer {KEY}x"]
)
def test_without_a_key_nothing_but_health_is_told(backend, authorization):
    headers = {} if authorization is None else {"authorization": authorization}
    for path in ("/v1/models", "/metrics", "/nothing"):
        response = ask(backend, path, keys=(KEY,), headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
    response = ask(backend, CHAT, HELLO | {"model": "chat"}, keys=(KEY,), headers=headers)
    assert response.status_code == 401
    assert backend.jobs == []
    assert ask(backend, "/health", keys=(KEY,), headers=headers).status_code == 200


@pytest.mark.parametrize("key", ["another-key-of-sixteen", KEY])
def test_any_of_the_keys_opens(backend, key):
    keys = ("another-key-of-sixteen", KEY)
    headers = {"authorization": f"bearer {key}"}
    assert ask(backend, "/v1/models", keys=keys, headers=headers).status_code == 200


def test_the_models_are_the_deployments(backend):
    models = ask(backend, "/v1/models").json()
    assert [card["id"] for card in models["data"]] == list(MODELS)
    assert ask(backend, "/v1/models/chat").json() == models["data"][0] | {
        "created": pytest.approx(models["data"][0]["created"], abs=60)
    }


def test_health_needs_a_scheduler_and_an_agent_that_is_heard(backend):
    assert ask(backend, "/health").json() == {"status": "ok", "agents": 1, "silent": []}
    silent = replace(CLUSTER.agents[0], silent_ms=60_000.0)
    backend.cluster_answer = replace(CLUSTER, agents=(silent,))
    assert ask(backend, "/health").status_code == 503
    backend.cluster_answer = SchedulerLostError("gone")
    assert ask(backend, "/health").status_code == 503


def test_metrics_outlive_the_scheduler(backend):
    backend.cluster_answer = SchedulerLostError("gone")
    text = ask(backend, "/metrics").text
    assert "festina_scheduler_up 0.0" in text
    assert "festina_power_watts" not in text


def call_of(model, **fields):
    reader = Reader({item.name: item for item in CONFIG.deployments}, CONFIG.gateway)
    return reader.text(json.dumps({"model": model, "prompt": "a"} | fields).encode(), {})


def test_a_client_that_hangs_up_cancels_all_its_choices(backend):
    async def run():
        call = call_of("endless", n=2, stream=True)
        choices = Choices(backend, call, Metrics(), GatewayWatch())
        gone = asyncio.Event()
        sent = []

        async def receive():
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)
            if b"The" in message.get("body", b""):
                gone.set()

        async with hang_up(receive, choices.cancel):
            await send_stream(call, choices, send, stall_s=5.0)
        return call, sent

    call, sent = asyncio.run(run())
    assert backend.cancelled == [job.submit.request_id for job in call.jobs]
    assert sent[-1]["more_body"] is False


def test_a_client_that_does_not_read_is_cut_off(backend):
    async def run():
        call = replaced(call_of("endless"), stream=True)

        async def send(message):
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        await send_stream(
            call, Choices(backend, call, Metrics(), GatewayWatch()), send, stall_s=0.01
        )

    with pytest.raises(TimeoutError):
        asyncio.run(run())
