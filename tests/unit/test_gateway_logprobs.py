"""How likely tokens were, as OpenAI's clients expect to be told."""

import json

import pytest
from gateway_backend import WORDS, RoteBackend, ask

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = {"model": "told", "messages": [{"role": "user", "content": "hello"}]}
PROMPT = {"model": "told", "prompt": "hello"}
EURO = "€".encode()


@pytest.fixture
def backend():
    return RoteBackend()


def choices(response):
    """Of each event of a stream."""
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event)["choices"][0] for event in events[:-1]]


def test_a_chat_tells_each_token_and_its_rivals(backend):
    answer = ask(backend, CHAT, HELLO | {"logprobs": True, "top_logprobs": 2}).json()
    told = answer["choices"][0]["logprobs"]
    assert told["refusal"] is None
    first = told["content"][0]
    assert first["token"] == WORDS[0]
    assert first["bytes"] == list(WORDS[0].encode())
    assert first["logprob"] == -0.5
    assert [rival["token"] for rival in first["top_logprobs"]] == [WORDS[0], "\ufffd"]
    assert first["top_logprobs"][1]["bytes"] == list(EURO[:2])
    assert [token["token"] for token in told["content"]] == list(WORDS)
    assert backend.jobs[0].generate.sampling.logprobs == 2


def test_a_completion_tells_them_side_by_side(backend):
    answer = ask(backend, TEXT, PROMPT | {"logprobs": 2}).json()
    told = answer["choices"][0]["logprobs"]
    assert told["tokens"] == list(WORDS)
    assert told["token_logprobs"] == [-0.5, -1.5, -2.5, -3.5]
    assert told["text_offset"] == [0, 4, 8, 12]
    assert told["top_logprobs"][0] == {WORDS[0]: -0.5, "bytes:\\xe2\\x82": -1.0}


def test_a_chosen_token_that_is_no_rival_is_told_too(backend):
    answer = ask(backend, TEXT, PROMPT | {"logprobs": 0}).json()
    told = answer["choices"][0]["logprobs"]
    assert told["top_logprobs"] == [
        {word: -0.5 - index} for index, word in enumerate(WORDS)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, HELLO | {"logprobs": True, "top_logprobs": 1}), (TEXT, PROMPT | {"logprobs": 1})],
)
def test_a_stream_tells_them_with_the_text_and_all_in_all_the_same(backend, path, body):
    whole = ask(backend, path, body).json()["choices"][0]["logprobs"]
    *parts, last = choices(ask(backend, path, body | {"stream": True}))
    assert last["logprobs"] is None
    told = [part["logprobs"] for part in parts if part["logprobs"] is not None]
    assert len(told) == len(WORDS)
    for name, value in whole.items():
        if isinstance(value, list):
            assert [item for part in told for item in part[name]] == value


def test_who_does_not_ask_is_not_told(backend):
    for body in ({}, {"logprobs": False}, {"logprobs": None, "top_logprobs": 0}):
        answer = ask(backend, CHAT, HELLO | body).json()
        assert answer["choices"][0]["logprobs"] is None
    assert all(job.generate.sampling.logprobs is None for job in backend.jobs)
