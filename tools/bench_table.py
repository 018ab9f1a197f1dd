"""Turns pytest-benchmark's JSON into the Markdown table kept in bench/results.

Usage: python tools/bench_table.py RUN.json > bench/results/NAME.md
"""

import json
import sys
from pathlib import Path
from typing import Any

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (0.0, "ns"))


def duration(seconds: float) -> str:
    """`seconds` with three digits in the unit that suits it."""
    size, unit = next((size, unit) for size, unit in UNITS if seconds >= size)
    return f"{seconds / (size or 1e-9):.3g} {unit}"


def figure(value: float | str) -> str:
    """An extra figure, with no more digits than it is worth."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def table(run: dict[str, Any]) -> list[str]:
    """The lines of the report: machine, date, then one row per benchmark."""
    machine = run["machine_info"]
    lines = [
        f"- CPU: {machine['cpu'].get('brand_raw', machine['machine'])}",
        f"- Python: {machine['python_version']}",
        f"- Date: {run['datetime'][:10]}",
        f"- Commit: {run['commit_info']['id'][:7]}",
        "- Command: `make bench`",
        "",
        "| group | benchmark | median | least | more |",
        "| --- | --- | --- | --- | --- |",
    ]
    for item in sorted(run["benchmarks"], key=lambda item: (item["group"] or "", item["name"])):
        more = ", ".join(f"{key} {figure(value)}" for key, value in item["extra_info"].items())
        stats = item["stats"]
        lines.append(
            f"| {item['group'] or ''} | {item['name']} | {duration(stats['median'])} "
            f"| {duration(stats['min'])} | {more} |"
        )
    return lines


if __name__ == "__main__":
    sys.stdout.write("\n".join(table(json.loads(Path(sys.argv[1]).read_text()))) + "\n")
