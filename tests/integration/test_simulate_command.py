"""`festina simulate` and `festina report` on the native simulation."""

import json
import signal
import subprocess
import sys

import pytest

from festina.cli import main as command_line
from festina.simulator.policies import POLICIES, SWITCHES
from festina.simulator.report import from_json

SMALL = ("--gpus", "2", "--load", "0.05")


@pytest.fixture
def festina(monkeypatch, capsys):
    """Runs a command in this process: exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["festina", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            command_line.main()
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return run


def test_json_has_every_policy_and_the_same_digests_in_another_process(festina):
    code, out, _ = festina("simulate", *SMALL, "--json")
    assert code == 0
    (report,) = from_json(out.encode())
    assert [result.policy for result in report.results] == list(POLICIES)
    assert (report.gpus, report.gpu, report.slo, report.seed) == (2, "h100-sxm", "strict", 101)
    assert report.modelled
    assert all(result.completed > 0 for result in report.results)
    child = subprocess.run(
        [sys.executable, "-m", "festina", "simulate", *SMALL, "--json"],
        capture_output=True,
        check=True,
        timeout=120,
    )
    (again,) = from_json(child.stdout)
    assert [one.digest for one in again.results] == [one.digest for one in report.results]


def test_the_bound_is_below_what_attains_as_much_and_its_solver_keeps_off_stdout():
    order = ["--gpus", "1", "--load", "0.3", "--policies", "serverlessllm", "--json"]
    child = subprocess.run(
        [sys.executable, "-m", "festina", "simulate", *order],
        capture_output=True,
        check=True,
        timeout=120,
    )
    (report,) = from_json(child.stdout)
    (result,) = report.results
    assert report.oracle_attainment == result.slo_attainment < 1, "or no solver is needed"
    assert 0 < report.oracle_energy_j < result.energy_j


def test_no_bound_where_none_is_wanted(festina):
    _, out, _ = festina("simulate", *SMALL, "--policies", "festina", "--no-oracle", "--json")
    assert from_json(out.encode())[0].oracle_energy_j is None


def test_children_find_what_one_process_finds(festina):
    order = ("simulate", *SMALL, "--policies", "festina,serverlessllm", "--no-oracle", "--json")
    order += ("--option", "festina.pace=off", "--setting", "idle_w=120")
    (alone,) = from_json(festina(*order)[1].encode())
    (spread,) = from_json(festina(*order, "--jobs", "2")[1].encode())
    assert [one.digest for one in spread.results] == [one.digest for one in alone.results]
    (other,) = from_json(festina(*order[:-4])[1].encode())
    assert all(
        one.digest != changed.digest
        for one, changed in zip(other.results, alone.results, strict=True)
    ), "neither the option nor the setting changed anything"


def test_an_ablation_runs_every_switch(festina):
    order = ("simulate", *SMALL, "--policies", "festina", "--no-oracle", "--ablation", "--json")
    (report,) = from_json(festina(*order)[1].encode())
    labels = [one.label for one in report.ablation if one.ladder == "festina"]
    assert labels == ["all on", *SWITCHES["festina"]]
    assert report.ablation[0].result.digest == report.results[0].digest


def test_the_folder_gets_results_and_a_page_and_report_makes_them_again(festina, tmp_path):
    out, trace = tmp_path / "made" / "here", tmp_path / "trace.json"
    code, text, _ = festina(
        "simulate", *SMALL, "--out", out, "--trace-out", trace, "--trace-window", "0:600"
    )
    assert code == 0
    assert all(policy in text for policy in POLICIES)
    (report,) = from_json((out / "results.json").read_bytes())
    assert report.synthetic
    assert "modelled" in (out / "report.html").read_text()
    events = json.loads(trace.read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert spans
    assert all(0 <= event["ts"] <= 600e6 for event in spans)
    again = tmp_path / "again.html"
    code, _, _ = festina("report", out / "results.json", "--html", again)
    assert code == 0
    assert again.read_text() == (out / "report.html").read_text()
    code, shown, _ = festina("report", out / "results.json")
    assert code == 0
    assert "steady-poisson" in shown


def test_several_workloads_are_one_list_of_reports(festina):
    order = ("--workload", "steady-poisson,zipf-chat", "--policies", "festina")
    code, out, _ = festina("simulate", *SMALL, *order, "--json")
    assert code == 0
    reports = from_json(out.encode())
    assert [(one.workload, one.seed) for one in reports] == [
        ("steady-poisson", 101),
        ("zipf-chat", 202),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--policies", "nobody"), ("--policies: 'nobody' is unknown", *POLICIES)),
        (("--policies", ","), ("--policies: nothing is named",)),
        (("--gpu", "b200"), ("--gpu: 'b200' is unknown", "h100-sxm, h200-sxm, a100-sxm")),
        (("--workload", "nothing"), ("workload", "'nothing'", "steady-poisson")),
        (("--slo", "lax"), ("slo: no objectives are called 'lax'", "strict, relaxed, loose")),
        (("--load", "0"), ("load: got 0",)),
        (("--load", "1e-300"), ("load: got 1e-300", "0.001 to 1000")),
        (("--out", "/dev/null/x"), ("--out: cannot make /dev/null/x",)),
        (("--trace-out", "no/such/folder.json"), ("--trace-out: there is no folder no/such",)),
        (("--option", "nobody.x=1"), ("--option: 'nobody' does not run",)),
        (("--option", "festina.pace"), ("--option: cannot read", "POLICY.NAME")),
        (("--option", "festina.nothing=1"), ("options.nothing",)),
        (("--setting", "mass=1"), ("--setting: 'mass' is unknown", "idle_w")),
        (("--setting", "idle_w=1e9"), ("idle_w: is 1000000000.0", "85 to 140")),
        (("--setting", "idle_w=nan"), ("--setting: cannot read", "NAME=VALUE")),
        (("--trace-window", "5:2"), ("--trace-window: got '5:2'", "START < END")),
        (("--trace-window", "soon"), ("--trace-window: got 'soon'",)),
    ],
)
def test_a_mistake_is_one_line_that_names_the_option(festina, arguments, words):
    code, out, err = festina("simulate", *SMALL, *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert all(word in err for word in words)


def test_a_failure_of_a_child_is_one_line_too(festina):
    order = ("--option", "festina.nothing=1", "--jobs", "2", "--policies", "festina,serverlessllm")
    code, out, err = festina("simulate", *SMALL, *order)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "options.nothing" in err


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "cannot read"), ("{}", "schema"), ('{"schema": 9}', "has schema 9")],
)
def test_results_that_cannot_be_read_are_named(festina, tmp_path, text, words):
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    code, _, err = festina("report", path)
    assert code == 2
    assert str(path) in err
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_writes_what_there_is_and_exits_with_130(tmp_path, jobs):
    order = ["--load", "8", "--gpus", "8", "--sensitivity", "--jobs", jobs, "--json"]
    order += ["--out", str(tmp_path), "--policies", "festina", "--progress-lines"]
    with subprocess.Popen(
        [sys.executable, "-m", "festina", "simulate", *order],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr.readline().startswith(b"progress")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"interrupted" in err
    (report,) = from_json(out)
    assert report.interrupted
    assert all(result.interrupted for result in report.results)
    assert from_json((tmp_path / "results.json").read_bytes()) == (report,)
    page = (tmp_path / "report.html").read_text()
    assert "Stopped early: festina." in page or "Interrupted: not every policy" in page
