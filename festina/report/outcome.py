"""How a run of requests is told at its end: to people as a table, to programs as JSON."""

from __future__ import annotations

import msgspec
from rich.console import Console

from festina.report.stats import summarise
from festina.report.tables import errors_lines, integrity_line, stats_table
from festina.workload.driver import Run


def print_outcome(run: Run, console: Console) -> None:
    """The table, the errors, and whether the promise held."""
    stats = summarise(run.outcomes(), run.duration_s)
    console.print(stats_table(stats))
    for line in errors_lines(stats):
        console.print(line)
    tokens = sum(one.output_tokens for one in stats)
    console.print(integrity_line(run.integrity(), len(run.transcripts), tokens))


def outcome_json(run: Run) -> str:
    """The same for programs."""
    integrity = run.integrity()
    answer = {
        "duration_s": run.duration_s,
        "deployments": summarise(run.outcomes(), run.duration_s),
        "integrity": integrity,
        "holds": integrity.holds,
    }
    return msgspec.json.format(msgspec.json.encode(answer)).decode()
