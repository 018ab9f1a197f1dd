"""Figures of lines: distributions of latencies, and the cluster over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Literal

from festina.report.figures import Figure, milliseconds, plain, policy_colour
from festina.report.svg.lines import LEFT_PX, RIGHT_PX, Line, LineChart, Panel, line_chart
from festina.report.svg.scales import Linear, Log, roof
from festina.simulator.histogram import Histogram, Percentiles
from festina.simulator.policies import FESTINA
from festina.simulator.report import SimulationReport
from festina.simulator.result import PolicyResult

POINTS_MAX = 180
"""Of a line over time; more are averaged into these."""

TIME_PX = 1040
BEYOND = 1.15
"""Room on an axis of latencies beyond what must be seen."""

Latency = Literal["ttft", "tbt"]


def latency_figure(report: SimulationReport, latency: Latency) -> Figure | None:
    """Cumulative distribution of TTFT or TBT; None if no result has a histogram."""
    name = latency.upper()
    found = [
        (result, histogram)
        for result in report.results
        if (histogram := _histogram(result, latency)) is not None and histogram.total
    ]
    if not found:
        return None
    objectives = getattr(report, f"{latency}_objectives_ms")
    low, high = _span([histogram for _, histogram in found], objectives)
    lines = [
        Line(
            label=result.policy,
            colour=policy_colour(result.policy),
            points=_cumulative(histogram, low, high),
            strong=result.policy == FESTINA,
            dashed=result.policy == "festina-paper",
        )
        for result, histogram in found
    ]
    drawing = line_chart(
        LineChart(
            name=f"Distribution of {name} by policy on {report.workload}",
            panels=[Panel("", lines, 0, 100, lambda value: f"{value:g}%")],
            x=Log(low, high, LEFT_PX, 510 - RIGHT_PX, most=7),
            tick=milliseconds,
            axis=f"{name} (modelled)",
            marks=[(value, "") for value in objectives if low < value < high],
        )
    )
    rows = tuple((one.policy, *_cells(getattr(one, f"{latency}_ms"))) for one in report.results)
    what = "first token" if latency == "ttft" else "gaps between tokens"
    return Figure(
        title=f"{name}",
        caption=f"Share of {what}{'s' * (latency == 'ttft')} that came within the time below."
        + (" Dashed: the objectives." if objectives else ""),
        drawing=drawing,
        headings=("policy", "p50", "p90", "p99"),
        rows=rows,
    )


def _histogram(result: PolicyResult, latency: Latency) -> Histogram | None:
    return result.ttft_histogram if latency == "ttft" else result.tbt_histogram


def _cells(values: Percentiles) -> tuple[str, str, str]:
    return milliseconds(values.p50), milliseconds(values.p90), milliseconds(values.p99)


def _span(histograms: Sequence[Histogram], objectives_ms: Sequence[float]) -> tuple[float, float]:
    """From the 0.5th to the 99.9th percentile of them all, and all objectives, in ms."""
    lows = [value for one in histograms if (value := one.percentile(0.5)) is not None]
    highs = [value for one in histograms if (value := one.percentile(99.9)) is not None]
    return min(lows) / BEYOND, BEYOND * max(*highs, *objectives_ms, min(lows))


def _cumulative(histogram: Histogram, low: float, high: float) -> list[tuple[float, float]]:
    """(upper edge, percent at or below it), of the bins within the axis."""
    shares = [100 * count / histogram.total for count in accumulate(histogram.counts)]
    pairs = zip(histogram.edges_ms, (0.0, *shares), strict=True)
    return [(edge, share) for edge, share in pairs if low <= edge <= high]


def timeline_figure(report: SimulationReport) -> Figure | None:
    """Watts, awake GPUs, clock and requests over time; None if nothing was sampled."""
    results = [result for result in report.results if result.timeline.power_w]
    if not results:
        return None
    end_s = max(one.timeline.interval_s * len(one.timeline.power_w) for one in results)
    panels = [
        _panel("power of all GPUs, W", results, "power_w", lambda value: f"{value:,.0f}"),
        _panel("GPUs awake", results, "gpus_awake", lambda value: f"{value:g}", report.gpus),
        _panel(
            "mean clock of awake GPUs, MHz", results, "clock_mhz", lambda value: f"{value:,.0f}"
        ),
        _panel("requests running", results, "running", lambda value: f"{value:,.0f}"),
    ]
    drawing = line_chart(
        LineChart(
            name=f"Power, awake GPUs, clock and requests over time on {report.workload}",
            panels=panels,
            x=Linear(0, end_s / 60, LEFT_PX, TIME_PX - RIGHT_PX, 12),
            tick=lambda value: f"{value:g}",
            axis="simulated time, minutes (modelled)",
            width=TIME_PX,
            panel_px=112,
        )
    )
    rows = tuple(
        (
            one.policy,
            plain(one.energy_j / one.simulated_s if one.simulated_s else None),
            plain(max(one.timeline.power_w)),
            plain(one.gpus_awake_mean, 2),
            plain(one.clock_mean_mhz),
            plain(one.clock_switches),
            plain(one.cold_starts),
            plain(one.migrations),
        )
        for one in results
    )
    return Figure(
        title="Over time",
        caption="The cluster while the requests arrive. The clock is drawn only while a GPU is "
        "awake.",
        drawing=drawing,
        headings=(
            "policy",
            "mean W",
            "peak W",
            "GPUs awake",
            "mean MHz",
            "clock switches",
            "cold starts",
            "migrations",
        ),
        rows=rows,
        wide=True,
    )


def _panel(
    title: str,
    results: Sequence[PolicyResult],
    column: str,
    tick: Callable[[float], str],
    high: float | None = None,
) -> Panel:
    lines = []
    for result in results:
        minutes = result.timeline.interval_s / 60
        values = _thinned(getattr(result.timeline, column), POINTS_MAX)
        points = [
            None if column == "clock_mhz" and not value else (place * minutes, value)
            for place, value in values
        ]
        lines.append(
            Line(
                label=result.policy,
                colour=policy_colour(result.policy),
                points=points,
                strong=result.policy == FESTINA,
                dashed=result.policy == "festina-paper",
            )
        )
    peak = max(point[1] for line in lines for point in line.points if point is not None)
    return Panel(title, lines, 0, high or roof(peak, 4), tick)


def _thinned(values: Sequence[float], most: int) -> list[tuple[float, float]]:
    """(middle of a stretch in samples, mean over it), for at most `most` equal stretches."""
    size = math.ceil(len(values) / most)
    stretches = [values[start : start + size] for start in range(0, len(values), size)]
    return [
        (size * index + len(part) / 2, math.fsum(part) / len(part))
        for index, part in enumerate(stretches)
    ]
