"""Runs with and without consolidation, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from festina.workload.comparison import Side

_TOLD = ("plans / given up", "parked / awake again", "before the dwell", "J expected / saved")
"""What a consolidator says of itself."""


def comparison_table(sides: Sequence[Side]) -> Table:
    """A column for each run."""
    table = Table("consolidation")
    for side in sides:
        table.add_column(side.policy, justify="right")
    rows = [_cells(side, sides[0]) for side in sides]
    for heading in rows[0]:
        table.add_row(heading, *(cells[heading] for cells in rows))
    return table


def comparison_lines(sides: Sequence[Side]) -> list[str]:
    """What the runs come to, in sentences."""
    off = sides[0]
    lines = []
    for side in sides[1:]:
        saved = 1 - side.energy_j / off.energy_j
        points = 100 * (side.attainment - off.attainment)
        early = side.told.early_wakes if side.told else 0
        lines.append(
            f"{side.policy}: {abs(saved):.2%} {'more' if saved < 0 else 'fewer'} joules "
            f"({side.energy_source}), attainment "
            f"{points:+.1f} points, {early} GPUs awake again before their dwell."
        )
    return lines


def _cells(side: Side, first: Side) -> dict[str, str]:
    told = side.told
    cells = {
        "joules": f"{side.energy_j:.0f} {side.energy_source}",
        "of the first": f"{side.energy_j / first.energy_j:.3f}",
        "metered": f"{side.metered_s:.0f} s",
        "attainment": f"{side.attainment:.1%}",
        "completed / sent": f"{side.completed} / {side.requests}",
        "GPUs awake, mean": f"{side.awake_mean:.2f}",
        "every token once, in order": "yes" if side.integrity.holds else "NO",
    }
    figures = {
        "plans / given up": "-" if told is None else f"{told.plans} / {told.aborts}",
        "parked / awake again": "-" if told is None else f"{told.parks} / {told.wakes}",
        "before the dwell": "-" if told is None else str(told.early_wakes),
        "J expected / saved": "-"
        if told is None
        else f"{told.expected_j:.0f} / {told.saved_j:.0f}",
    }
    return cells | figures
