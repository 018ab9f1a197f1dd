"""The description of the API says what the gateway does."""

import json
import os

import pytest
from gateway_backend import CONFIG, MODELS, RoteBackend, ask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from festina.gateway.app import build_app
from festina.gateway.fields import (
    NEUTRAL_CHAT,
    NEUTRAL_TEXT,
    ChatBody,
    TextBody,
)
from festina.gateway.keys import ApiKeys
from festina.gateway.openapi import description

EXAMPLES = int(os.environ.get("FESTINA_FUZZ_EXAMPLES", "100"))
KINDS = [
    ("/v1/chat/completions", "ChatBody", ChatBody, NEUTRAL_CHAT),
    ("/v1/completions", "TextBody", TextBody, NEUTRAL_TEXT),
]


def test_every_route_is_described():
    app = build_app(CONFIG, RoteBackend(), ApiKeys())
    routes = {route.path.replace(":path", "") for route in app.routes}
    assert routes == set(description(MODELS)["paths"])


@pytest.mark.parametrize(("path", "name", "kind", "neutral"), KINDS)
def test_every_parameter_is_described(path, name, kind, neutral):
    properties = description(MODELS)["components"]["schemas"][name]["properties"]
    assert set(kind.__struct_fields__) | set(neutral) <= set(properties)


def test_the_document_is_served_as_it_is():
    assert ask(RoteBackend(), "/openapi.json").json() == json.loads(json.dumps(description(MODELS)))


@pytest.mark.parametrize(("keys", "security"), [((), []), (("k" * 16,), [{"key": []}])])
def test_keys_are_described_where_they_are_asked_for(keys, security):
    headers = {"authorization": f"Bearer {'k' * 16}"}
    document = ask(RoteBackend(), "/openapi.json", keys=keys, headers=headers).json()
    assert document["security"] == security


@pytest.mark.parametrize("value", ["", "fast", "null", "nan", "-0.1", "1.1"])
def test_headers_are_described_as_the_numbers_that_are_read(value):
    parameters = description(MODELS)["paths"]["/v1/completions"]["post"]["parameters"]
    schemas = {parameter["name"]: parameter["schema"] for parameter in parameters}
    assert schemas["festina-pace"] == {"type": "number", "minimum": 0.0, "maximum": 1.0}
    assert schemas["festina-ttft-ms"]["minimum"] == 1e-3
    body = {"model": "chat", "prompt": "a"}
    answer = ask(RoteBackend(), "/v1/completions", body, headers={"festina-pace": value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "festina-pace"


def test_every_reference_leads_somewhere():
    text = json.dumps(description(MODELS))
    known = description(MODELS)["components"]["schemas"]
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.split('"')[0] in known


def values(schema, schemas, depth=0):
    """What a schema allows."""
    if "$ref" in schema:
        return values(schemas[schema["$ref"].rsplit("/", 1)[1]], schemas, depth + 1)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([values(one, schemas, depth) for one in schema["anyOf"]])
    match schema.get("type"):
        case "string":
            low, high = schema.get("minLength", 0), min(schema.get("maxLength", 8), 8)
            return st.text(min_size=low, max_size=max(high, low))
        case "integer":
            return st.integers(schema["minimum"], min(schema["maximum"], 2**53))
        case "number":
            low = schema.get("minimum", schema.get("exclusiveMinimum"))
            return st.floats(
                low, schema["maximum"], exclude_min="exclusiveMinimum" in schema, allow_nan=False
            )
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            items = values(schema["items"], schemas, depth)
            return st.lists(items, min_size=schema.get("minItems", 0), max_size=3)
        case "object":
            fields = {
                name: values(one, schemas, depth) for name, one in schema["properties"].items()
            }
            required = {name: fields.pop(name) for name in schema["required"]}
            return st.fixed_dictionaries(required, optional=fields)
    return st.none() | st.text(max_size=4)


@pytest.mark.parametrize(("path", "name", "kind", "neutral"), KINDS)
def test_what_the_description_allows_is_read_or_refused_by_name(path, name, kind, neutral):
    """Never a 500, never a complaint without a parameter: of bodies that the schema allows."""
    document = description(MODELS)
    schemas = document["components"]["schemas"]
    allowed = set(document["paths"][path]["post"]["responses"])

    @given(values(schemas[name], schemas))
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def check(body):
        answer = ask(RoteBackend(), path, body | {"model": "chat"})
        assert str(answer.status_code) in allowed
        if answer.status_code == 200:
            return
        error = answer.json()["error"]
        assert answer.status_code in (400, 413), error
        assert error["param"] or answer.status_code == 413, error

    check()
