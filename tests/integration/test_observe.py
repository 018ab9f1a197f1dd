"""What a real cluster tells of itself: a trace, and a log in which no prompt and no output is."""

import json
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

SECRET = "xyzzy-the-secret-of-the-cave"
FESTINA = [sys.executable, "-c", "from festina.cli.main import main; main()"]
DEPLOY = "chat=sim:smollm2-135m,ttft_ms=5000,tbt_ms=1000,pace=0"
SERVE = (
    *FESTINA, "serve", "--gpus", "sim:2", "--deploy", DEPLOY, "--endpoint", "tcp://127.0.0.1:0",
    "--http", "127.0.0.1:0",
)  # fmt: skip
CHAT = {"model": "chat", "messages": [{"role": "user", "content": SECRET}], "max_tokens": 12}
WRONG = (
    CHAT | {"model": SECRET},
    CHAT | {"messages": SECRET},
    CHAT | {"temperature": SECRET},
    CHAT | {"max_tokens": 10**6},
    CHAT | {"messages": [{"role": SECRET, "content": "a"}]},
    CHAT | {SECRET: 1},
)


class Served:
    """A cluster with its stderr in a file."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log.open("w")
        self._process = subprocess.Popen(
            [*SERVE, *arguments], stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self._process.stdout.readline()
        self.url = self._process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)
        self._process.stdout.close()
        self._log.close()
        assert self._process.returncode == 0


def outputs_of(url):
    """The texts of good answers, whole and streamed; everything else that a client may try."""
    texts = [
        httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=30).json()["choices"][0][
            "message"
        ]["content"]
    ]
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json=CHAT | {"stream": True, "seed": 5}, timeout=30
    ) as stream:
        chunks = [
            json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: {")
        ]
    deltas = [chunk["choices"][0]["delta"].get("content") for chunk in chunks if chunk["choices"]]
    texts.append("".join(filter(None, deltas)))
    for body in WRONG:
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)
        assert 400 <= answer.status_code < 500, body
    httpx.post(f"{url}/v1/completions", content=f'{{"prompt": "{SECRET}'.encode(), timeout=30)
    httpx.get(f"{url}/{SECRET}", headers={"authorization": f"Bearer {SECRET}"})
    httpx.get(f"{url}/v1/models/{SECRET}")
    return texts


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The texts of some outputs, then the log's lines and the trace's events as text."""
    folder = tmp_path_factory.mktemp("observe")
    log, trace = folder / "log", folder / "trace.json"
    options = ("--trace", str(trace), "--log-format", "json", "--set", "log.level=debug")
    with Served(log, *options) as served:
        texts = outputs_of(served.url)
    return texts, log.read_text(), trace.read_text()


def test_no_prompt_and_no_output_is_in_the_log_or_in_the_trace(told):
    texts, log, trace = told
    assert len(texts) == 2
    assert all(len(text) > 8 for text in texts)
    for text in (SECRET, *texts):
        for where in (log, trace):
            assert text not in where
            assert json.dumps(text)[1:-1] not in where


def test_every_line_of_the_log_is_json_with_the_requests_ids(told):
    lines = [json.loads(line) for line in told[1].splitlines()]
    assert {"time", "level", "process", "event"} <= set.intersection(*map(set, lines))
    processes = {line["process"] for line in lines}
    assert {"serve", "scheduler", "gateway"} < processes
    ended = [line for line in lines if line["event"] == "request finished"]
    by_process = {}
    for line in ended:
        by_process.setdefault(line["process"], set()).add(line["request_id"])
    assert len(by_process.pop("gateway")) == 2
    assert len(set.union(*by_process.values())) == 2
    assert all(line["output_tokens"] == 12 and line["energy_j"] > 0 for line in ended)
    placed = {line["request_id"] for line in lines if line["event"] == "request placed"}
    assert placed >= {line["request_id"] for line in ended}
    errors = [line for line in lines if line["event"] == "http error"]
    assert {line["status"] for line in errors} >= {400, 404}


def test_the_trace_has_requests_steps_and_counters_of_all_processes(told):
    events = json.loads(told[2])
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {"sim0", "sim1", "gateway"}
    served = {event["pid"] for event in events if event["ph"] == "X" and event["name"] == "decode"}
    for pid in served:
        steps = sorted(
            (event["ts"], event["dur"])
            for event in events
            if event["ph"] == "X" and event["pid"] == pid and event["name"] != "load"
        )
        for (ts, dur), (after, _) in pairwise(steps):
            assert after >= ts + dur - 2000.0  # a device runs one step at a time, up to jitter
    counters = {event["name"] for event in events if event["ph"] == "C"}
    assert {"clock MHz", "power W (modelled)", "SMs in use"} <= counters
    rows = {}
    for event in events:
        if event["ph"] in "be":
            row = rows.setdefault((event["cat"], event["id"]), {"b": 0, "e": 0})
            row[event["ph"]] += 1
    requests = [row for (kind, _), row in rows.items() if kind == "request"]
    assert len(requests) >= 2
    assert all(row["b"] == row["e"] == 4 for row in requests)
    http = {name for kind, name in rows if kind == "http"}
    assert http >= {name for kind, name in rows if kind == "request"}


def test_a_full_disk_never_stops_serving(tmp_path):
    log = tmp_path / "log"
    with Served(log, "--trace", "/dev/full") as served:
        for _ in range(3):
            answer = httpx.post(f"{served.url}/v1/chat/completions", json=CHAT, timeout=30)
            assert answer.status_code == 200
        deadline = time.monotonic() + 20
        while not re.search(
            r"^festina_trace_lost_events_total\{.*\} [1-9]",
            httpx.get(f"{served.url}/metrics").text,
            re.MULTILINE,
        ):
            assert time.monotonic() < deadline, "no event is counted as lost"
            time.sleep(0.1)
        assert httpx.get(f"{served.url}/health").status_code == 200
    warnings = [line for line in log.read_text().splitlines() if line.startswith("warning: ")]
    for process in ("sim0", "sim1", "gateway"):
        assert [process in line and "No space left" in line for line in warnings].count(True) == 1
