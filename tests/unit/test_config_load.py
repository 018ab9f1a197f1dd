import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from festina.config import Config
from festina.config_docs import all_settings, settings_table
from festina.config_load import load, parse_deployment
from festina.errors import ConfigError
from festina.types import Slo

ROOT = Path(__file__).parents[2]


def write(folder: Path, text: str) -> Path:
    file = folder / "festina.yaml"
    file.write_text(text)
    return file


def test_without_sources_every_setting_has_its_default():
    found = load()
    assert found.config == Config()
    assert set(found.sources.values()) == {"default"}


def test_flag_beats_environment_beats_file_beats_default(tmp_path):
    file = write(tmp_path, "agent: {batch_max: 1, chunk_tokens: 1, waiting_max: 1}")
    found = load(
        file,
        {"FESTINA_AGENT__CHUNK_TOKENS": "2", "FESTINA_AGENT__WAITING_MAX": "2", "HOME": "/"},
        {"agent.waiting_max": "3"},
    )
    agent = found.config.agent
    assert (agent.beta, agent.batch_max, agent.chunk_tokens, agent.waiting_max) == (1.0, 1, 2, 3)
    assert found.sources["agent.beta"] == "default"
    assert found.sources["agent.batch_max"] == f"file {file}"
    assert found.sources["agent.chunk_tokens"] == "environment FESTINA_AGENT__CHUNK_TOKENS"
    assert found.sources["agent.waiting_max"] == "flag for agent.waiting_max"


def test_the_environment_names_the_file(tmp_path):
    file = write(tmp_path, "gpus: sim:3")
    assert load(environment={"FESTINA_CONFIG": str(file)}).config.gpus == "sim:3"


def test_deployments_read_the_same_from_file_environment_and_flag(tmp_path):
    file = write(
        tmp_path,
        "deployments:\n"
        "  - {name: chat, weights: w, pace: 1, slo: {ttft_ms: 10, tbt_ms: 5}}\n"
        "  - {name: bulk, weights: w, preload: true}\n",
    )
    texts = ["chat=w,pace=1,ttft_ms=10,tbt_ms=5", "bulk=w,preload=true"]
    from_file = load(file).config
    assert from_file.deployments[0].slo == Slo(10.0, 5.0)
    assert from_file.deployments[1].preload
    assert load(environment={"FESTINA_DEPLOYMENTS": ";".join(texts)}).config == from_file
    assert load(flags={"deployments": texts}).config == from_file


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("gpu: cpu:1", "gpu", "unknown setting"),
        ("agent: {batch: 1}", "agent.batch", "unknown setting"),
        ("agent: {batch_max: -1}", "agent.batch_max", "an integer ≥ 0"),
        ("agent: {waiting_max: 0}", "agent.waiting_max", "an integer > 0"),
        ("agent: {batch_max: '3'}", "agent.batch_max", "got '3'"),
        ("agent: {batch_max: {a: 1}}", "agent.batch_max", "a mapping"),
        ("agent: 3", "agent", "a mapping"),
        ("agent: {beta: .nan}", "agent.beta", "≥ 0 and ≤ 1"),
        ("link: {heartbeat_s: .inf}", "link.heartbeat_s", "a finite number"),
        ("agent: {policy: best}", "agent.policy", "one of festina, paper"),
        ("deployments: 3", "deployments", "a list"),
        ("deployments: [3]", "deployments[0]", "a mapping"),
        ("deployments: [{name: a}]", "deployments[0].weights", "is missing"),
        ("deployments: [{name: a b, weights: w}]", "deployments[0].name", "of the form"),
        (
            "deployments: [{name: a, weights: w}, {name: a, weights: w}]",
            "deployments[1].name",
            "twice",
        ),
        (
            "deployments: [{name: a, weights: w, slo: {ttft_ms: -1, tbt_ms: 1}}]",
            "deployments[0].slo.ttft_ms",
            "a number > 0",
        ),
    ],
)
def test_a_bad_file_is_refused_with_path_source_and_expectation(tmp_path, text, field, words):
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.field == field
    assert words in str(caught.value)
    if "missing" not in words and "twice" not in words:
        assert str(file) in str(caught.value) or "unknown" in words


@pytest.mark.parametrize(
    ("environment", "flags", "field", "source"),
    [
        ({"FESTINA_AGENT__BETA": "2"}, {}, "agent.beta", "environment FESTINA_AGENT__BETA"),
        ({"FESTINA_NOPE": "2"}, {}, "nope", "environment FESTINA_NOPE"),
        ({}, {"agent.beta": "x"}, "agent.beta", "flag for agent.beta"),
        ({}, {"agent.nope": "x"}, "agent.nope", "flag for agent.nope"),
    ],
)
def test_a_bad_variable_or_flag_is_named(environment, flags, field, source):
    with pytest.raises(ConfigError) as caught:
        load(environment=environment, flags=flags)
    assert caught.value.field == field
    assert source in str(caught.value)


@pytest.mark.parametrize("text", ["", "a", "a=", "=w", "a=w,pace", "a=w,pace=1,pace=2"])
def test_a_deployment_of_another_form_is_refused(text):
    with pytest.raises(ConfigError):
        parse_deployment(text)


@pytest.mark.parametrize("text", ["[1]", "a: [", "3"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert caught.value.field == "config"


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: " + "[" * 500 + "]" * 500])
def test_a_file_that_is_nested_in_itself_or_too_deeply_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="nested deeper") as caught:
        load(write(tmp_path, text))
    assert caught.value.field == "config"


@pytest.mark.parametrize(
    "scalar",
    [
        "2023-11-11 68:15:46",
        "2023-11-11 08:15:46 +99:00",
        "!!timestamp x",
        "!!bool x",
        '!!int ""',
        "9" * 5000,
    ],
)
def test_a_scalar_that_is_not_what_it_claims_is_refused(tmp_path, scalar):
    with pytest.raises(ConfigError, match="is not YAML") as caught:
        load(write(tmp_path, f"a: {scalar}"))
    assert caught.value.field == "config"


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError):
        load(tmp_path / "nowhere.yaml")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["gpus", "agent", "deployments", "beta", "slo", "name", "x"]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=12,
    )
)
def test_no_file_content_raises_anything_but_a_config_error(tmp_path_factory, tree):
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_bytes(msgspec.yaml.encode(tree))
    with contextlib.suppress(ConfigError):
        load(file)


def test_the_page_of_settings_is_current():
    page = ROOT / "docs" / "settings.md"
    assert page.read_text() == settings_table(), "run: festina config --table > docs/settings.md"


def test_every_setting_is_described():
    settings = list(all_settings())
    assert {"scheduler.endpoint", "deployments[].slo.ttft_ms"} <= {s.path for s in settings}
    assert all(setting.meaning and setting.expected for setting in settings)


def test_every_variable_in_the_page_is_accepted():
    for setting in all_settings():
        if setting.variable and setting.default != '""':
            assert load(environment={setting.variable: setting.default}).config == Config()


@pytest.mark.parametrize(
    "path", ["link.queue_max", "link.linger_ms", "agent.waiting_max", "scheduler.retry_after_ms"]
)
def test_numbers_that_sockets_or_native_code_cannot_take_are_refused(path):
    with pytest.raises(ConfigError, match=r"got '1099511627776' from flag.*≤") as caught:
        load(flags={path: str(2**40)})
    assert caught.value.field == path


def test_variables_of_tests_are_no_settings():
    environment = {"FESTINA_FAILPOINTS": "agent.send.Pong=kill", "FESTINA_FAILPOINTS_SEED": "3"}
    assert load(environment=environment) == load()
