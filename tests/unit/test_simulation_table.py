import io

from rich.console import Console
from simulation_samples import POLICIES, policy_result, report

from festina.report.simulation_table import (
    SimulationProgress,
    notes,
    print_reports,
    ratio_table,
    simulation_table,
)


def text_of(table, width=120):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


def test_a_row_for_each_policy_with_its_ratios():
    lines = text_of(simulation_table(report())).splitlines()
    assert "steady-poisson: 28,800 requests on 8 × h100-sxm" in lines[0]
    rows = {line.split()[0]: line.split() for line in lines[-len(POLICIES) :]}
    assert rows["dilu"][1:5] == ["4,809", "2.29", "183%", "99.1%"]
    assert rows["festina"][1:3] == ["2,100", "1.00"]


def test_without_a_bound_the_table_does_not_speak_of_one():
    bare = report(oracle_energy_j=None, synthetic=False)
    assert "bound" not in text_of(simulation_table(bare))
    assert not any("bound" in note for note in notes(bare))


def test_a_narrow_terminal_still_shows_every_policy_and_its_joules():
    text = text_of(simulation_table(report(), width=80), width=80)
    assert all(policy in text for policy in POLICIES)
    assert "5,481" in text
    assert "…" not in text


def test_the_notes_say_what_is_synthetic_cut_and_interrupted():
    text = " ".join(notes(report(interrupted=True, clipped=12)))
    assert "synthetic" in text
    assert "Interrupted" in text
    assert "12 requests were shortened" in text
    assert "1,700 kJ" in text


def test_a_run_that_stopped_early_says_so_and_has_no_ratio():
    cut = report(results=(policy_result("festina"), policy_result("dilu", interrupted=True)))
    text = text_of(simulation_table(cut))
    assert "(stopped early)" in text
    assert text.count("1.00") == 1


def test_ratios_of_several_workloads_have_their_mean_and_how_festina_stands():
    first, second = report(), report(workload="zipf-chat", scale=1.2)
    lines = text_of(ratio_table([first, second])).splitlines()
    rows = {line[:28].strip(): line[28:].split() for line in lines}
    assert rows["dilu"] == ["2.29×", "2.70×", "2.49×", "1.36×"]
    assert rows["festina above the bound"] == ["24%", "24%"]
    assert rows["festina's attainment"] == ["99.1%", "99.1%"]
    assert rows["to the best baseline, points"] == ["+0.0", "+0.0"]


def test_what_is_printed_says_once_that_it_is_modelled(capsys):
    print_reports([report(), report(workload="zipf-chat")])
    text = capsys.readouterr().out
    assert text.count("modelled") == 1
    assert text.count("…") == 0


def test_progress_shows_bars_on_a_terminal_and_nothing_elsewhere():
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        with SimulationProgress(console) as progress:
            progress.update("dilu", 0.5)
            progress.finish("dilu", policy_result("dilu", energy_j=2e6))
        text = console.file.getvalue()
        assert ("2,000 kJ, 99.1%" in text) == terminal
        assert bool(text) == terminal
