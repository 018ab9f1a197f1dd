"""`festina report`: results of simulations as a page or a picture, without running them again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from festina.errors import BadRequestError
from festina.report.simulation_html import simulation_html
from festina.report.simulation_svg import summary_svg
from festina.report.simulation_table import print_reports
from festina.simulator.report import SimulationReport, from_json


def command(
    results: Annotated[list[Path], typer.Argument(help="results.json of festina simulate.")],
    html: Annotated[Path | None, typer.Option(help="Write the page here.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Write the picture of all ratios here.")] = None,
) -> None:
    """Show results of `festina simulate` again: as tables, a page, or one picture."""
    reports = [report for path in results for report in _read(path)]
    if html is not None:
        html.write_text(simulation_html(reports), encoding="utf-8")
    if svg is not None:
        svg.write_text(summary_svg(reports), encoding="utf-8")
    if html is None and svg is None:
        print_reports(reports)


def _read(path: Path) -> tuple[SimulationReport, ...]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadRequestError(
            f"cannot read: {error.strerror}", field=str(path), expected="results.json"
        ) from error
    return from_json(text, str(path))
