"""Simulations on a terminal: a table of the results, and bars while they run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from festina.report.figures import kilojoules, percent, plain
from festina.report.ratio_rows import ratio_rows
from festina.report.ratios import above_oracle, energy_ratio, label_of, ratios
from festina.simulator.experiment import ALL_ON
from festina.simulator.policies import FESTINA
from festina.simulator.report import SimulationReport
from festina.simulator.result import PolicyResult

WIDE = 100
"""Characters that the whole table needs."""

NARROW_LOSES = 3
"""Columns that a narrower one goes without."""


def simulation_table(report: SimulationReport, *, width: int = WIDE) -> Table:
    """One row a policy: joules, ratios, attainment, latencies, clocks and cold starts.

    Args:
        report: What to show.
        width: Characters there are; below `WIDE` the last three columns are left out.
    """
    shown = slice(None) if width >= WIDE else slice(-NARROW_LOSES)
    table = _table(_title(report))
    table.add_column("policy", vertical="bottom", no_wrap=True)
    for heading in _headings(report)[shown]:
        table.add_column(heading, justify="right", no_wrap=True)
    for result in report.results:
        style = "bold" if result.policy == FESTINA else None
        name = result.policy + "\n(stopped early)" * result.interrupted
        table.add_row(name, *_cells(report, result)[shown], style=style)
    return table


def print_reports(reports: Sequence[SimulationReport]) -> None:
    """Tables and notes on stdout; as wide as they need where that is no terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    for report in reports:
        console.print(simulation_table(report, width=console.width))
        for note in notes(report):
            console.print(note)
        console.print()
    if len(reports) > 1 and ratios(reports):
        console.print(ratio_table(reports))
    if any(report.ablation for report in reports):
        console.print(ablation_table(reports))
    console.print("Joules and latencies are modelled: they come from festina's analytic GPU.")


def ratio_table(reports: Sequence[SimulationReport]) -> Table:
    """Energy of each policy as a multiple of festina's: a column for each workload."""
    table = _table("energy as a multiple of festina's")
    table.add_column("policy")
    for heading in (*(label_of(report) for report in reports), "geometric mean", "paper"):
        table.add_column(heading.replace("-", "-\n", 1).replace(" ", "\n"), justify="right")
    for row in ratio_rows(reports):
        table.add_row(*row)
    return table


def ablation_table(reports: Sequence[SimulationReport]) -> Table:
    """Energy and attainment of each run of the ablations beside its policy's own."""
    table = _table("ablation: energy as a multiple of the whole policy's, and attainment")
    table.add_column("run")
    for report in reports:
        table.add_column(label_of(report).replace("-", "-\n", 1), justify="right")
    runs = dict.fromkeys((run.ladder, run.label) for report in reports for run in report.ablation)
    for ladder, label in runs:
        cells = [_ablation_cell(report, ladder, label) for report in reports]
        table.add_row(_ablation_name(ladder, label), *cells)
    return table


def _ablation_name(ladder: str, label: str) -> str:
    if label == ALL_ON:
        return ladder
    return f"without {label}" if ladder == FESTINA else f"paper: {label}"


def _ablation_cell(report: SimulationReport, ladder: str, label: str) -> str:
    whole = {result.policy: result.energy_j for result in report.results}
    for run in report.ablation:
        if (run.ladder, run.label) == (ladder, label):
            ratio = run.result.energy_j / whole[run.result.policy]
            return f"{ratio:.2f}× {run.result.slo_attainment:.1%}"
    return "-"


def notes(report: SimulationReport) -> Iterator[str]:
    """What a reader must know beside the table, one line each."""
    if report.oracle_energy_j:
        yield (
            f"No policy can attain {percent(report.oracle_attainment, 2)} with less than "
            f"{kilojoules(report.oracle_energy_j)} kJ; “above bound” counts from there."
        )
    if report.synthetic:
        yield "The workload is a synthetic stand-in: --traces names a folder with recorded ones."
    if report.clipped:
        yield f"{report.clipped:,} requests were shortened to their model's context."
    if report.interrupted:
        yield "Interrupted: what was stopped early covers a part of the time, the rest is missing."


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def _title(report: SimulationReport) -> str:
    return (
        f"{label_of(report)}: {report.requests:,} requests on {report.gpus} × {report.gpu}, "
        f"{report.slo} objectives, seed {report.seed}"
    )


def _headings(report: SimulationReport) -> tuple[str, ...]:
    bound = ("above\nbound",) if report.oracle_energy_j else ()
    return (
        "energy\nkJ",
        "×\nfestina",
        *bound,
        "at-\ntained",
        "TTFT\np50 ms",
        "TTFT\np99 ms",
        "TBT\np99 ms",
        "J per\ntoken",
        "GPUs\nawake",
        "clock\nMHz",
        "cold\nstarts",
    )


def _cells(report: SimulationReport, result: PolicyResult) -> tuple[str, ...]:
    bound = (percent(above_oracle(report, result), 0),) if report.oracle_energy_j else ()
    ratio = energy_ratio(report, result)
    return (
        kilojoules(result.energy_j),
        plain(ratio, 2),
        *bound,
        percent(result.slo_attainment),
        plain(result.ttft_ms.p50),
        plain(result.ttft_ms.p99),
        plain(result.tbt_ms.p99),
        plain(result.joules_per_token, 3),
        plain(result.gpus_awake_mean, 1),
        plain(result.clock_mean_mhz),
        plain(result.cold_starts),
    )


class SimulationProgress:
    """A bar for each run, on a terminal; nothing elsewhere. Use as a context manager.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[outcome]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> SimulationProgress:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, name: str, share: float) -> None:
        """A run has got this far: 0 to 1; the first call opens its bar."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=1.0, outcome="")
        self._progress.update(self._tasks[name], completed=share)

    def finish(self, name: str, result: PolicyResult) -> None:
        """A run has ended."""
        self.update(name, 1.0)
        early = "stopped early, " if result.interrupted else ""
        outcome = f"{early}{kilojoules(result.energy_j)} kJ, {percent(result.slo_attainment)}"
        self._progress.update(self._tasks[name], outcome=outcome)
        self._progress.stop_task(self._tasks[name])
