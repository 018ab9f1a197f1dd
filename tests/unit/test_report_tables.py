import io

from rich.console import Console

from festina.messages import AgentInfo, Cluster, DeploymentInfo
from festina.report.live import LiveRun
from festina.report.stats import Outcome, summarise
from festina.report.tables import (
    cluster_table,
    errors_lines,
    integrity_line,
    stats_table,
)
from festina.types import (
    GpuSummary,
    Health,
    ModelState,
    ModelSummary,
    Provenance,
    Sampling,
    Slo,
    Usage,
)
from festina.workload.driver import Integrity, PlannedRequest, Transcript

SLO = Slo(3000.0, 400.0)


def text_of(renderable):
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    return console.file.getvalue()


def outcome(model, source):
    usage = Usage(10, 3, 6.0, Provenance(source))
    return Outcome(model, SLO, 0.0, (1.5, 1.6, 1.7), usage)


def test_joules_bear_their_provenance_and_objectives_stand_beside_latencies():
    stats = summarise([outcome("chat", "modelled"), outcome("chat", "measured")], 2.0)
    text = text_of(stats_table(stats))
    for part in (
        "6.0 modelled",
        "6.0 measured",
        "1.50 s / 1.50 s",
        "≤ 3.00 s",
        "≤ 400 ms",
        "2 / 2",
    ):
        assert part in text
    assert "100.0%" in text
    assert "3.0" in text


def test_many_deployments_get_a_row_each():
    stats = summarise([outcome(f"m{number}", "modelled") for number in range(5)], 2.0)
    lines = text_of(stats_table(stats)).splitlines()
    assert any(line.startswith("│ m4 ") and "≤ 400 ms" in line for line in lines)


def test_a_deployment_without_answers_still_has_a_row_and_its_errors():
    stats = summarise([Outcome("chat", SLO, 0.0, (), None, "overloaded")], 1.0)
    assert "0 / 1" in text_of(stats_table(stats))
    assert errors_lines(stats) == ["chat: 1 x overloaded"]


def test_a_broken_promise_is_named():
    assert "0 lost, 0 duplicated" in integrity_line(Integrity(), 3, 9)
    broken = integrity_line(Integrity(lost=2), 3, 9)
    assert "BROKEN" in broken
    assert "2 lost" in broken


def test_the_cluster_view_shows_work_power_and_what_is_unknown():
    model = ModelSummary("chat", ModelState.READY, running=3, waiting=1)
    loading = ModelSummary("bulk", ModelState.LOADING)
    gpu = GpuSummary(
        1, 0, 0, 8, 2, 0.0, 100, 75, 0, 11.4, Provenance.MODELLED, 50.0, False, (model, loading)
    )
    cluster = Cluster(
        1, (DeploymentInfo("chat", SLO, 10),), (AgentInfo("cpu-0", 1, "cpu", 2500.0, gpu),), 7, 1
    )
    text = text_of(cluster_table(cluster))
    for part in (
        "1 agents", "7 placed", "1 refused", "11 W modelled", "cpu-0 (silent 2.5 s)", "6/8",
        "25%", "chat 3/1", "bulk loading 0/0",
    ):  # fmt: skip
        assert part in text


def test_a_hot_gpu_that_is_held_back_says_so_and_an_idle_one_does_not():
    def row(*throttle):
        gpu = GpuSummary(
            1, 1200, 1980, 132, 0, 0.0, 100, 75, 0, 690.0, Provenance.MEASURED, 50.0, False,
            health=Health(71, throttle),
        )  # fmt: skip
        cluster = Cluster(1, (), (AgentInfo("cuda0", 1, "H100", 1.0, gpu),), 0, 0)
        return text_of(cluster_table(cluster))

    assert "1200→1980 (power cap)" in row("power cap", "clock setting")
    assert " 71 " in row("power cap")
    assert "(" not in row("idle", "clock setting").splitlines()[-2]


def test_a_run_without_a_terminal_prints_each_shown_text_once_complete():
    console = Console(file=io.StringIO(), width=80)
    request = PlannedRequest(0.0, "chat", SLO, 4, Sampling(), text="hi")
    other = PlannedRequest(0.0, "chat", SLO, 4, Sampling(), text="ho")
    with LiveRun(console, 2, {id(request): "chat | hi"}) as live:
        for asked in (request, other):
            transcript = Transcript(asked)
            transcript.text = "[bold]hello"
            live.observe(transcript)
            transcript.ended_s = 1.0
            live.observe(transcript)
    assert console.file.getvalue().split() == ["chat", "|", "hi", "[bold]hello"]
