import json

import msgspec
import pytest

from festina.cli import main as command_line
from festina.config_load import load
from festina.environment import cpu_facts


def run(monkeypatch, capsys, *arguments):
    """Exit code, stdout and stderr of a festina command."""
    monkeypatch.setattr("sys.argv", ["festina", *arguments])
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    out, err = capsys.readouterr()
    return caught.value.code or 0, out, err


def test_config_prints_yaml_that_reads_back_as_the_same_settings(monkeypatch, capsys, tmp_path):
    deploy = "chat=w,ttft_ms=10,tbt_ms=5,pace=1"
    code, out, _ = run(monkeypatch, capsys, "config", "--deploy", deploy, "--set", "agent.beta=0.5")
    assert code == 0
    assert "beta: 0.5  # flag for agent.beta" in out
    file = tmp_path / "festina.yaml"
    file.write_text(out)
    expected = load(flags={"deployments": [deploy], "agent.beta": "0.5"}).config
    assert load(file).config == expected


def test_config_tells_programs_the_settings_and_their_sources(monkeypatch, capsys):
    monkeypatch.setenv("FESTINA_AGENT__BATCH_MAX", "4")
    code, out, _ = run(monkeypatch, capsys, "config", "--json", "--gpus", "sim:2")
    found = json.loads(out)
    assert code == 0
    assert found["settings"]["agent"]["batch_max"] == 4
    assert found["sources"]["agent.batch_max"] == "environment FESTINA_AGENT__BATCH_MAX"
    assert found["sources"]["gpus"] == "flag for gpus"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("config", "--set", "agent.beta=2"), "agent.beta: got '2' from flag for agent.beta"),
        (("config", "--set", "agent.beta"), "PATH=VALUE"),
        (("config", "--deploy", "chat"), "NAME=WEIGHTS"),
        (("config", "--config", "/nowhere/f.yaml"), "cannot read"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(monkeypatch, capsys, arguments, words):
    code, out, err = run(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_env_describes_this_machine(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "env", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["packages"]["numpy"]
    assert found["cpu"]["cores"] >= 1
    assert isinstance(found["native"]["cuda"], bool)
    code, out, _ = run(monkeypatch, capsys, "env")
    assert code == 0
    assert found["festina"] in out


def test_the_processor_is_read_from_proc():
    facts = cpu_facts("model name\t: Zen\nflags\t\t: fpu avx2 fma\n", "MemTotal:   2048 kB\n")
    assert (facts.name, facts.isa, facts.memory_bytes) == ("Zen", ("avx2", "fma"), 2048 * 1024)
    assert msgspec.structs.asdict(cpu_facts("", ""))["memory_bytes"] == 0
