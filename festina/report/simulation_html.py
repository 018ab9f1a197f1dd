"""Simulations as one HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jinja2
from markupsafe import Markup

from festina.report.attainment_dots import attainment_dots
from festina.report.figures import Figure, kilojoules, milliseconds, percent, plain, times
from festina.report.ratios import (
    OURS,
    above_oracle,
    best_baseline_attainment,
    energy_ratio,
    geometric_mean,
    label_of,
)
from festina.report.simulation_bars import ablation_figure, attainment_figure, energy_figure
from festina.report.simulation_dots import ratio_figure, sensitivity_figure
from festina.report.simulation_lines import latency_figure, timeline_figure
from festina.report.simulation_models import models_figure
from festina.simulator.policies import FESTINA
from festina.simulator.report import SimulationReport
from festina.simulator.result import PolicyResult


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline number.

    Attributes:
        label: What it is.
        value: The number.
        note: Beneath it.
    """

    label: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Section:
    """One workload.

    Attributes:
        anchor: Its id on the page.
        title: Its name.
        facts: What was simulated, one line.
        notices: What a reader must know before the numbers.
        tiles: Headline numbers.
        figures: From top to bottom.
    """

    anchor: str
    title: str
    facts: str
    notices: tuple[str, ...]
    tiles: tuple[Tile, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """All that the template shows.

    Attributes:
        title: Of the page.
        lead: Beneath it.
        css: Style sheet.
        version: Of festina.
        overview: Figures over all workloads.
        sections: One a workload.
    """

    title: str
    lead: str
    css: Markup
    version: str
    overview: tuple[Figure, ...]
    sections: tuple[Section, ...]


def simulation_html(reports: Sequence[SimulationReport]) -> str:
    """The page of one or several reports."""
    templates = _templates()
    css = "\n".join(_source(templates, name) for name in ("simulation.css", "page.css"))
    overview = (ratio_figure(reports), attainment_dots(reports)) if len(reports) > 1 else ()
    page = Page(
        title=_title(reports),
        lead="Energy of language-model serving under latency objectives, by scheduling policy. "
        "All policies saw the same requests, the same GPUs and the same physics.",
        css=Markup(css),  # noqa: S704 - our own file
        version=reports[0].version,
        overview=tuple(one for one in overview if one is not None),
        sections=tuple(_section(report, index) for index, report in enumerate(reports)),
    )
    return templates.get_template("simulation.html").render(page=page)


def style_sheet() -> str:
    """Colours and text styles of the drawings, for those that stand alone."""
    return _source(_templates(), "simulation.css")


def _templates() -> jinja2.Environment:
    loader = jinja2.PackageLoader("festina.report", "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)


def _source(templates: jinja2.Environment, name: str) -> str:
    return templates.get_template(name).render().strip()


def _title(reports: Sequence[SimulationReport]) -> str:
    if len(reports) == 1:
        return f"festina simulation: {label_of(reports[0])}"
    return f"festina simulation: {len(reports)} workloads"


def _section(report: SimulationReport, index: int) -> Section:
    slug = re.sub(r"[^a-z0-9]+", "-", label_of(report).lower()).strip("-")
    return Section(
        anchor=f"w{index}-{slug}",
        title=label_of(report),
        facts=f"{report.gpus} × {report.gpu}, “{report.slo}” objectives, load {report.load:g}, "
        f"seed {report.seed}, {report.requests:,} requests",
        notices=tuple(_notices(report)),
        tiles=tuple(_tiles(report)) if report.results else (),
        figures=tuple(_figures(report)) if report.results else (),
    )


def _figures(report: SimulationReport) -> Iterator[Figure]:
    figures = (
        energy_figure(report),
        attainment_figure(report),
        models_figure(report),
        latency_figure(report, "ttft"),
        latency_figure(report, "tbt"),
        timeline_figure(report),
        ablation_figure(report, FESTINA),
        ablation_figure(report, "festina-paper"),
        sensitivity_figure(report),
    )
    yield from (one for one in figures if one is not None)


def _notices(report: SimulationReport) -> list[str]:
    notices = []
    if report.synthetic:
        notices.append(
            "The workload is a synthetic stand-in of the same shape: no trace folder was given."
        )
    if report.clipped:
        notices.append(f"{report.clipped:,} requests were shortened to their model's context.")
    early = [result.policy for result in report.results if result.interrupted]
    if early:
        notices.append(
            f"Stopped early: {', '.join(early)}. Their numbers cover only the part that was "
            "simulated, and no ratio is formed with them."
        )
    elif report.interrupted:
        notices.append("Interrupted: not every policy that was asked for has run.")
    return notices


def _tiles(report: SimulationReport) -> list[Tile]:
    subject = report.of(FESTINA) or report.results[0]
    others = [
        ratio
        for result in report.results
        if result.policy not in OURS and (ratio := energy_ratio(report, result)) is not None
    ]
    best = best_baseline_attainment(report)
    beside = "no baseline ran" if best is None else f"best baseline {percent(best)}"
    mean = geometric_mean(others)
    if mean is None:
        clock = plain(subject.clock_mean_mhz)
        second = Tile("GPUs awake", plain(subject.gpus_awake_mean, 1), f"mean clock {clock} MHz")
    else:
        saved = f"geometric mean; {percent(1 - 1 / mean, 0)} of it saved"
        second = Tile("Baselines need", times(mean), saved)
    return [
        Tile(
            f"Energy of {subject.policy}", f"{kilojoules(subject.energy_j)} kJ", _per_token(subject)
        ),
        second,
        Tile(
            f"Attainment of {subject.policy}",
            percent(subject.slo_attainment),
            beside,
        ),
        _last_tile(report, subject),
    ]


def _last_tile(report: SimulationReport, subject: PolicyResult) -> Tile:
    ttft, tbt = milliseconds(subject.ttft_ms.p99), milliseconds(subject.tbt_ms.p99)
    above = above_oracle(report, subject)
    if above is None:
        return Tile(f"TTFT p99 of {subject.policy}", ttft, f"TBT p99 {tbt}")
    return Tile("Above the lower bound", percent(above, 0), f"TTFT p99 {ttft}, TBT p99 {tbt}")


def _per_token(result: PolicyResult) -> str:
    return f"{plain(result.joules_per_token, 3)} J per output token"
