import json

import pytest
from gateway_backend import CONFIG
from hypothesis import given, settings
from hypothesis import strategies as st

from festina.errors import BadRequestError, FestinaError, UnknownModelError
from festina.gateway.errors import UnsupportedParameterError, problem
from festina.gateway.fields import CHOICES_MAX
from festina.gateway.parameters import Reader
from festina.messages import ChatTurn
from festina.types import LOGPROBS_MAX, Sampling, Slo

READER = Reader({item.name: item for item in CONFIG.deployments}, CONFIG.gateway)
HELLO = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
TEXT = {"model": "chat", "prompt": "hello"}


def chat(headers=None, **fields):
    return READER.chat(json.dumps(HELLO | fields).encode(), headers or {})


def text(**fields):
    return READER.text(json.dumps(TEXT | fields).encode(), {})


def test_a_chat_becomes_one_job_with_openais_defaults():
    call = chat()
    (job,) = call.jobs
    assert job.generate.turns == (ChatTurn("user", "hello"),)
    assert job.generate.max_tokens == CONFIG.gateway.max_tokens
    assert job.generate.slo is None
    assert call.slo == Slo(1000.0, 100.0)
    assert (job.generate.sampling.temperature, job.generate.sampling.top_p) == (1.0, 1.0)
    assert (call.stream, call.include_usage, call.running_usage) == (False, False, False)


def test_every_parameter_reaches_the_job():
    call = chat(
        max_completion_tokens=9,
        temperature=0,
        top_p=0.5,
        seed=41,
        stop=["a", "b"],
        n=2,
        ignore_eos=True,
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
        festina={"tbt_ms": 50, "pace": 0.25},
    )
    first, second = call.jobs
    assert first.generate.max_tokens == 9
    assert first.generate.sampling == Sampling(0.0, 0.5, 41, ("a", "b"), True)
    assert second.generate.sampling.seed == 42
    assert first.submit.request_id != second.submit.request_id
    assert first.generate.slo == Slo(1000.0, 50.0)
    assert first.generate.pace == 0.25
    assert call.stream
    assert call.include_usage
    assert call.running_usage


def test_turns_may_come_in_parts_and_as_clients_send_answers_back():
    parts = [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]
    turns = [
        {"role": "developer", "content": parts},
        {"role": "assistant", "content": "", "refusal": None, "tool_calls": [], "name": "x"},
        {"role": "user", "content": "hello"},
    ]  # fmt: skip
    (job,) = chat(messages=turns).jobs
    assert job.generate.turns == (
        ChatTurn("system", "be brief"), ChatTurn("assistant", ""), ChatTurn("user", "hello"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "texts", "ids"),
    [
        ("a", ["a"], [()]),
        (["a", "b"], ["a", "b"], [(), ()]),
        ([1, 2], [""], [(1, 2)]),
        ([[1], [2, 3]], ["", ""], [(1,), (2, 3)]),
    ],
)
def test_a_prompt_has_four_forms(prompt, texts, ids):
    jobs = text(prompt=prompt).jobs
    assert [job.generate.text for job in jobs] == texts
    assert [job.generate.token_ids for job in jobs] == ids


def test_headers_fill_what_the_body_leaves_open():
    headers = {"festina-ttft-ms": "300", "festina-pace": "1"}
    (job,) = chat(headers, festina={"pace": 0}).jobs
    assert job.generate.slo == Slo(300.0, 100.0)
    assert job.generate.pace == 0.0
    with pytest.raises(BadRequestError) as caught:
        chat({"festina-pace": "fast"})
    assert caught.value.field == "festina-pace"


def test_nulls_bookkeeping_and_neutral_values_change_nothing():
    call = chat(
        user="me", seed=None, logprobs=False, tools=[], presence_penalty=0, frequency_penalty=0.0,
        response_format={"type": "text"}, stream_options=None, metadata={"a": "b"}, n=None,
    )  # fmt: skip
    assert len(call.jobs) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0].type"),
        ({"messages": "hello"}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": CHOICES_MAX + 1}, "n"),
        ({"seed": -1}, "seed"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"festina": {"ttft_ms": 0}}, "festina.ttft_ms"),
        ({"festina": {"speed": 1}}, "festina.speed"),
        ({"colour": "red"}, "colour"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": LOGPROBS_MAX + 1}, "top_logprobs"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(fields, param):
    with pytest.raises(BadRequestError) as caught:
        chat(**fields)
    assert json.loads(problem(caught.value).body)["error"]["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"min_tokens": 4}, "min_tokens"),
    ],
)
def test_what_no_engine_does_is_refused_by_name(fields, param):
    with pytest.raises(UnsupportedParameterError) as caught:
        chat(**fields)
    assert caught.value.field == param


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 0}, 0),
        ({"logprobs": True, "top_logprobs": LOGPROBS_MAX}, LOGPROBS_MAX),
        ({"logprobs": False, "top_logprobs": 0}, None),
    ],
)
def test_a_chat_asks_for_logprobs_and_so_many_rivals(fields, asked):
    assert chat(**fields).jobs[0].generate.sampling.logprobs == asked


@pytest.mark.parametrize("logprobs", [None, 0, 5, LOGPROBS_MAX])
def test_completions_ask_for_logprobs_by_the_number_of_rivals(logprobs):
    assert text(logprobs=logprobs).jobs[0].generate.sampling.logprobs == logprobs


@pytest.mark.parametrize("logprobs", [-1, LOGPROBS_MAX + 1, True, "all"])
def test_completions_refuse_any_other_number_of_rivals(logprobs):
    with pytest.raises(BadRequestError) as caught:
        text(logprobs=logprobs)
    assert caught.value.field == "logprobs"


@pytest.mark.parametrize("prompt", ["", [], [""], [[]], [1, "a"], [-1], [True], {"a": 1}, [[1.5]]])
def test_what_is_no_prompt_is_refused(prompt):
    with pytest.raises(BadRequestError) as caught:
        text(prompt=prompt)
    assert caught.value.field.startswith("prompt")


def test_an_unknown_model_is_told_as_such():
    with pytest.raises(UnknownModelError):
        chat(model="nobody")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["model", "messages", "prompt", "n", "seed", "stop", "stream", "stream_options", "festina",
     "max_tokens", "temperature", "logprobs", "logit_bias", "tools", "role", "user"]
)  # fmt: skip


def status_of(read, raw):
    try:
        return 200 if read(raw, {}).jobs else 0
    except FestinaError as error:
        return problem(error).status


@settings(deadline=None, max_examples=400)
@given(fields=st.dictionaries(FIELDS, JSON_VALUES), base=st.sampled_from([HELLO, TEXT, {}]))
def test_any_json_is_a_call_or_a_typed_refusal(fields, base):
    raw = json.dumps(base | fields).encode()
    for read in (READER.chat, READER.text):
        assert status_of(read, raw) in (200, 400, 404)


@settings(deadline=None, max_examples=300)
@given(raw=st.binary(max_size=64))
def test_any_bytes_are_a_typed_refusal(raw):
    for read in (READER.chat, READER.text):
        with pytest.raises(BadRequestError):
            read(raw, {})


def test_deep_nests_and_lone_surrogates_are_typed_refusals():
    for raw in (b'{"model":' + b"[" * 100_000, rb'{"model":"chat","prompt":"\ud800"}'):
        with pytest.raises(BadRequestError):
            READER.text(raw, {})


@pytest.mark.parametrize(
    ("field", "named"),
    [("slo", "festina"), ("slo.ttft_ms", "festina.ttft_ms"), ("sampling.top_p", "top_p")],
)
def test_errors_name_the_parameter_of_http(field, named):
    error = json.loads(problem(BadRequestError("is wrong", field=field)).body)["error"]
    assert error["param"] == named
    assert error["message"].startswith(named)
