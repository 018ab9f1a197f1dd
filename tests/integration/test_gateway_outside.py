"""What platform engineers put beside the gateway: a real Prometheus, a real browser."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from socket import socket

import httpx
import pytest

from festina.config import Config, DeploymentConfig, GatewayConfig, SchedulerConfig
from festina.runtime.supervisor import Cluster
from festina.types import Slo

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"
PROMETHEUS = shutil.which("prometheus")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
SCRAPE_S = 1
HAVE_SENSOR = ("festina_gpu_temperature_celsius", "festina_gpu_throttled")
"""Simulated GPUs have no sensors, so these have no series here."""
CONFIG = Config(
    gpus="sim:2",
    deployments=(
        DeploymentConfig(name="chat", weights="sim:llama-8b", slo=Slo(5000.0, 1000.0), pace=0.0),
    ),
    scheduler=SchedulerConfig(endpoint="tcp://127.0.0.1:0"),
    gateway=GatewayConfig(http="127.0.0.1:0", vllm_names=True),
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Cluster(CONFIG) as cluster:
        yield cluster.url


def generate(url: str, max_tokens: int = 8) -> None:
    body = {"model": "chat", "prompt": "hello", "max_tokens": max_tokens, "ignore_eos": True}
    assert httpx.post(f"{url}/v1/completions", json=body, timeout=30).status_code == 200


def refused(url: str) -> None:
    body = {"model": "chat", "prompt": "hello", "max_tokens": 2**20}
    assert httpx.post(f"{url}/v1/completions", json=body, timeout=30).status_code == 400


def free_port() -> int:
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def prometheus(url: str, tmp_path: Path) -> Iterator[str]:
    target = url.removeprefix("http://")
    settings = tmp_path / "prometheus.yml"
    settings.write_text(
        f"global: {{scrape_interval: {SCRAPE_S}s}}\n"
        f"scrape_configs: [{{job_name: festina, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            str(PROMETHEUS),
            f"--config.file={settings}",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address={address}",
            "--log.level=error",
        ]
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def query(prometheus: str, expression: str) -> list[object]:
    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}, timeout=10)
    body = answer.json()
    assert body["status"] == "success", body
    return list(body["data"]["result"])


def until_up(prometheus: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if query(prometheus, "festina_scheduler_up == 1"):
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "Prometheus scraped nothing"
        time.sleep(0.2)


@pytest.mark.skipif(PROMETHEUS is None, reason="needs prometheus (apt install prometheus)")
def test_a_real_prometheus_has_data_for_every_query_of_the_dashboard(url: str, prometheus: str):
    generate(url)  # before the first scrape, so that each series has two samples to rate
    refused(url)
    until_up(prometheus)
    for _ in range(3):
        generate(url)
        refused(url)
        time.sleep(SCRAPE_S)
    panels = json.loads(DASHBOARD.read_text())["panels"]
    wanted = [
        target["expr"].replace("$__rate_interval", "30s")
        for panel in panels
        for target in panel["targets"]
        if target["expr"] not in HAVE_SENSOR
    ]
    empty = [expression for expression in wanted if not query(prometheus, expression)]
    assert empty == []
    assert query(prometheus, "vllm:generation_tokens_total > 0")


def browse(url: str, *options: str) -> str:
    return subprocess.run(
        [
            str(BROWSER),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=5000",
            *options,
            "--dump-dom",
            url,
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=90,
    ).stdout


@pytest.mark.skipif(BROWSER is None, reason="needs a browser (apt install chromium)")
@pytest.mark.parametrize("size", ["1280,900", "390,844"])
def test_a_real_browser_shows_the_cluster(url: str, size: str, tmp_path: Path):
    generate(url, max_tokens=4)
    page = browse(f"{url}/", f"--window-size={size}", f"--user-data-dir={tmp_path}")
    assert "as of " in page
    for shown in (
        "sim0",
        "sim1",
        "H100-SXM5-80GB",
        ">chat<",
        "modelled",
        "GPUs awake",
        "Joules saved (modelled)",
        ">Saved<",
    ):
        assert shown in page, shown
    assert page.count('<article class="gpu"') == 2
    assert "100.0 %" in page
