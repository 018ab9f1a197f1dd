"""The table of `festina simulate-faults`."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text

from festina.simulator.faults.report import FaultReport


def faults_table(report: FaultReport) -> Group:
    """What was injected, how requests ended, how full what is bounded became; and the verdict."""
    table = Table("faults injected", "times", "requests ended", "times")
    rows = max(len(report.faults), len(report.ends))
    for left, right in zip(_rows(report.faults, rows), _rows(report.ends, rows), strict=True):
        table.add_row(*left, *right)
    for column in (1, 3):
        table.columns[column].justify = "right"
    peaks = ", ".join(f"{what} {share:.0%}" for what, share in report.peaks.items())
    return Group(table, Text(f"Fullest, of its bound: {peaks}."), Text(_verdict(report)))


def _rows(counts: Mapping[str, int], rows: int) -> list[tuple[str, str]]:
    found = [(what, f"{times:,}") for what, times in counts.items()]
    return found + [("", "")] * (rows - len(found))


def _verdict(report: FaultReport) -> str:
    seeds, broken = len(report.results), len({one.seed for one in report.broken})
    kept = "promises 1, 2, 4 and 6 kept" if report.repeated else "promises 1, 2 and 4 kept"
    found = f"promises broken by {broken} of them" if broken else kept
    again = f"; {report.repeated} ran again in another process" if report.repeated else ""
    return (
        f"{seeds} seeds, {report.simulated_s:,.0f} virtual seconds: {found}{again}. "
        f"Digest {report.digest[:16]}."
    )
