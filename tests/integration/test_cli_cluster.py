"""The commands against a cluster of simulated GPUs: real processes, real sockets, no weights."""

import json
import signal
import subprocess
import sys

import psutil
import pytest

from festina.cli import main as command_line

FESTINA = [sys.executable, "-c", "from festina.cli.main import main; main()"]
DEPLOY = "chat=sim:smollm2-135m,ttft_ms=5000,tbt_ms=1000,pace=0"
TRACE = "t_s,input_tokens,output_tokens\n" + "".join(
    f"{number / 20},{8 + number},{1 + number % 5}\n" for number in range(20)
)


def start_serving(*arguments):
    """A cluster started as shells start background jobs: with Ctrl-C ignored."""
    serve = [*FESTINA, "serve", "--endpoint", "tcp://127.0.0.1:0", *arguments]
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *serve]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


@pytest.fixture(scope="module")
def endpoint():
    process, endpoint = start_serving("--gpus", "sim:2", "--deploy", DEPLOY)
    with process:
        yield endpoint
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def run(monkeypatch, capsys, *arguments):
    """Exit code, stdout and stderr of a festina command."""
    monkeypatch.setattr("sys.argv", ["festina", *arguments])
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    out, err = capsys.readouterr()
    return caught.value.code or 0, out, err


def test_submit_streams_text_and_tells_what_it_cost(monkeypatch, capsys, endpoint):
    arguments = ("submit", "chat", "hello", "--endpoint", endpoint, "--max-tokens", "5")
    code, text, usage = run(monkeypatch, capsys, *arguments)
    assert code == 0
    assert "5 out" in usage
    assert "J modelled" in usage
    code, out, _ = run(monkeypatch, capsys, *arguments, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["text"] == text
    assert len(answer["token_ids"]) == answer["usage"]["output_tokens"] == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nobody", "hello"), "nobody"),
        (("chat", ""), "empty"),
        (("chat", "hello", "--ttft-ms", "5"), "slo"),
        (("chat", "hello", "--ttft-ms", "-5", "--tbt-ms", "5"), "ttft_ms"),
    ],
)
def test_a_mistaken_request_is_one_line_and_exit_code_2(
    monkeypatch, capsys, endpoint, arguments, words
):
    code, out, err = run(monkeypatch, capsys, "submit", *arguments, "--endpoint", endpoint)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_replay_completes_every_request_once_and_in_order(monkeypatch, capsys, endpoint, tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text(TRACE)
    arguments = ("replay", str(trace), "--model", "chat", "--endpoint", endpoint)
    code, out, _ = run(monkeypatch, capsys, *arguments, "--json", "--duration", "0.5")
    answer = json.loads(out)
    (stats,) = answer["deployments"]
    assert code == 0
    assert answer["holds"]
    assert stats["submitted"] == stats["completed"] == 10
    assert stats["output_tokens"] == sum(1 + number % 5 for number in range(10))
    assert stats["input_tokens"] == sum(8 + number for number in range(10))
    assert list(stats["energy_j"]) == ["modelled"]
    code, out, _ = run(monkeypatch, capsys, *arguments, "--speedup", "10")
    assert code == 0
    assert "20 / 20" in out
    assert "0 lost, 0 duplicated" in " ".join(out.split())


def test_replay_refuses_deployments_that_are_not_served(monkeypatch, capsys, endpoint, tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text(TRACE)
    code, _, err = run(
        monkeypatch, capsys, "replay", str(trace), "--model", "nobody", "--endpoint", endpoint
    )
    assert code == 2
    assert "expected one of chat" in err


def test_top_shows_both_agents(monkeypatch, capsys, endpoint):
    code, out, _ = run(monkeypatch, capsys, "top", "--json", "--endpoint", endpoint)
    cluster = json.loads(out)
    assert code == 0
    assert len(cluster["agents"]) == 2
    assert cluster["deployments"][0]["slo"] == {"ttft_ms": 5000.0, "tbt_ms": 1000.0}
    code, out, _ = run(monkeypatch, capsys, "top", "--once", "--endpoint", endpoint)
    assert code == 0
    assert "2 agents, 1 deployments" in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_in_order_and_leaves_no_process(number):
    process, endpoint = start_serving("--gpus", "sim:1", "--deploy", DEPLOY)
    with process:
        assert endpoint.startswith("tcp://127.0.0.1:")
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == 2
        process.send_signal(number)
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()
        assert not psutil.wait_procs(children, timeout=5)[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpus", "sim:1"), "nothing to serve"),
        (("--gpus", "tpu:1", "--deploy", DEPLOY), "gpus"),
    ],
)
def test_serve_refuses_what_it_cannot_serve(monkeypatch, capsys, arguments, words):
    code, _, err = run(monkeypatch, capsys, "serve", "--endpoint", "tcp://127.0.0.1:0", *arguments)
    assert code in (1, 2)
    assert words in err
    assert "Traceback" not in err


def test_a_cluster_can_be_built_by_hand():
    scheduler = subprocess.Popen(
        [*FESTINA, "scheduler", "--endpoint", "tcp://127.0.0.1:0", "--deploy", DEPLOY],
        stdout=subprocess.PIPE,
        text=True,
    )
    with scheduler:
        endpoint = scheduler.stdout.readline().strip()
        agent = subprocess.Popen(
            [*FESTINA, "agent", "--join", endpoint, "--gpu", "sim", "--deploy", DEPLOY],
            stdout=subprocess.PIPE,
            text=True,
        )
        with agent:
            assert agent.stdout.readline().startswith("tcp://")
            ask = [*FESTINA, "submit", "chat", "hello", "--endpoint", endpoint, "--max-tokens", "3"]
            answer = json.loads(subprocess.check_output([*ask, "--json"], timeout=60))
            assert answer["usage"]["output_tokens"] == 3
            for process in (agent, scheduler):
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
