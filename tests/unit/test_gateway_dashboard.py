"""The Grafana dashboard asks for nothing that does not exist."""

import json
import re
from pathlib import Path

import pytest
from gateway_backend import CONFIG, RoteBackend, ask
from msgspec.structs import replace

from festina.gateway.vllm_names import SHARED

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"
PROMISED = {
    "festina_energy_joules_total": {"gpu", "model", "phase", "source"},
    "festina_power_watts": {"gpu", "source"},
    "festina_clock_mhz": {"gpu"},
    "festina_sm_partition": {"gpu"},
    "festina_joules_per_token": {"model_name", "source"},
    "festina_slo_attainment": {"model_name"},
    "festina_gpus_awake": set(),
    "festina_migrations_total": {"gpu", "kind", "outcome"},
    "festina_wake_seconds_bucket": {"gpu", "le"},
    "festina_saved_joules": {"by", "source"},
}
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def exposed(text: str) -> dict[str, set[str]]:
    """Names of the series in a scrape, and the labels that each has."""
    series: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^([a-z][a-zA-Z0-9_:]*)(?:\{(.*)\})? ", text, re.MULTILINE):
        series.setdefault(name, set()).update(re.findall(r"(\w+)=\"", labels))
    return series


@pytest.fixture(scope="module")
def scrape() -> str:
    config = replace(CONFIG, gateway=replace(CONFIG.gateway, vllm_names=True))
    return ask(
        RoteBackend(),
        "/metrics",
        config=config,
        before=[("/v1/chat/completions", CHAT), ("/v1/chat/completions", CHAT | {"model": "lost"})],
    ).text


def test_every_metric_of_the_dashboard_exists(scrape: str):
    known = exposed(scrape)
    wanted = {name for text in expressions() for name in re.findall(r"festina_\w+", text)}
    assert len(wanted) > 26
    assert wanted <= set(known)


def test_every_name_that_operators_were_promised_exists_and_is_on_the_dashboard(scrape: str):
    known = exposed(scrape)
    shown = " ".join(expressions())
    for name, labels in PROMISED.items():
        assert labels <= known[name], name
        assert name in shown, name


def test_every_label_of_the_dashboard_exists(scrape: str):
    known = exposed(scrape)
    for text in expressions():
        for grouped, name in re.findall(r"by \(([\w, ]+)\) \(rate\((\w+)", text):
            assert set(grouped.split(", ")) <= known[name], text


def test_panels_do_not_lie_on_each_other():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_what_vllm_has_too_is_shown_under_its_name(scrape: str):
    known = exposed(scrape)
    ours = {name for name in known if name.startswith("festina_")}
    theirs = {name for name in known if name.startswith("vllm:")}
    assert {name.removeprefix("vllm:") for name in theirs} == {
        name.removeprefix("festina_")
        for name in ours
        if any(name.removeprefix("festina_").startswith(shared) for shared in SHARED)
    }
    assert "vllm:time_to_first_token_seconds_bucket" in theirs
    assert all(known[name] == known[name.replace("vllm:", "festina_")] for name in theirs)


def test_vllms_names_are_not_shown_unasked():
    assert "vllm:" not in ask(RoteBackend(), "/metrics").text
