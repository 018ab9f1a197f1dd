"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from festina.messages import AgentInfo, Cluster, Consolidation, ConsolidationEvent
from festina.report.stats import DeploymentStats, Spread
from festina.types import GpuSummary, ModelState, ModelSummary
from festina.workload.driver import Integrity

NONE = "-"
ORDINARY_LIMITS = {"idle", "clock setting"}
"""Reasons for a low clock that nobody need be told of: there is no work, or festina wants it."""
EVENTS_SHOWN = 8
COLUMNS_MAX = 4
"""Deployments that fit side by side on a narrow terminal."""


def stats_table(stats: Sequence[DeploymentStats]) -> Table:
    """Latencies against objectives, attainment, speed and joules; a column for each deployment.

    More than `COLUMNS_MAX` deployments get a row each instead.
    """
    cells = [_stats_cells(one) for one in stats]
    if len(stats) > COLUMNS_MAX:
        table = Table("deployment", *cells[0])
        for one, values in zip(stats, cells, strict=True):
            table.add_row(one.model, *values.values())
        return table
    table = Table("")
    for one in stats:
        table.add_column(one.model, justify="right")
    for heading in cells[0]:
        table.add_row(heading, *(values[heading] for values in cells))
    return table


def _stats_cells(one: DeploymentStats) -> dict[str, str]:
    slo = one.slo or {}
    joules, joules_per_token = _joules(one)
    return {
        "completed / submitted": f"{one.completed} / {one.submitted}",
        "TTFT p50 / p99": _spread(one.ttft),
        "TTFT objective": _objective(slo.get("ttft_ms")),
        "TBT p50 / p99": _spread(one.tbt),
        "TBT objective": _objective(slo.get("tbt_ms")),
        "attainment": f"{one.attainment:.1%}",
        "output tokens/s": f"{one.output_tokens_per_s:.1f}",
        "joules": joules,
        "joules per token": joules_per_token,
        "preemptions": str(one.preemptions),
    }


def errors_lines(stats: Sequence[DeploymentStats]) -> list[str]:
    """One line per deployment whose requests met errors."""
    return [
        f"{one.model}: " + ", ".join(f"{count} x {code}" for code, count in one.errors.items())
        for one in stats
        if one.errors
    ]


def integrity_line(integrity: Integrity, requests: int, tokens: int) -> str:
    """Whether every request ended exactly once with its tokens in order, in one sentence."""
    if integrity.holds:
        return (
            f"Each of {requests} requests ended exactly once; {tokens} tokens arrived: "
            "0 lost, 0 duplicated, 0 out of order."
        )
    return (
        f"BROKEN PROMISE in {requests} requests: {integrity.unended} never ended, "
        f"{integrity.ended_twice} ended twice; of {tokens} tokens {integrity.lost} lost, "
        f"{integrity.duplicated} duplicated, {integrity.reordered} out of order; "
        f"{integrity.protocol_errors} requests broke the protocol."
    )


def cluster_table(cluster: Cluster) -> Table:
    """One row per agent: clock, SMs, work in hand, power and models."""
    title = _cluster_title(cluster)
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("agent")
    table.add_column("device")
    for heading in ("clock MHz", "SMs used", "batch", "queue", "KV used", "watts", "joules", "°C"):
        table.add_column(heading, justify="right")
    table.add_column("models (running/waiting)")
    for agent in sorted(cluster.agents, key=lambda agent: agent.agent):
        table.add_row(*_agent_row(agent))
    return table


def consolidation_lines(told: Consolidation | None) -> list[str]:
    """What the consolidator does, what that has saved, and its last events with their reasons."""
    if told is None:
        return ["no consolidator is heard: every GPU stays as it is"]
    early = f", {told.early_wakes} of them early" if told.early_wakes else ""
    title = (
        f"consolidation ({told.policy}): {told.state}; {told.plans} plans, {told.aborts} given up, "
        f"{told.parks} parked, {told.wakes} awake again{early}; {told.saved_j:.0f} J saved of "
        f"{told.expected_j:.0f} J expected"
    )
    return [title, *(_event_line(event) for event in told.events[-EVENTS_SHOWN:])]


def _event_line(event: ConsolidationEvent) -> str:
    joules = f" [{event.expected_j:.0f} J expected" if event.expected_j else ""
    if joules:
        joules += f", {event.saved_j:.0f} J saved]" if event.kind == "ended" else "]"
    return f"  {event.ago_s:5.0f} s ago  {event.kind} {event.agent}: {event.why}{joules}"


def _agent_row(agent: AgentInfo) -> tuple[str, ...]:
    gpu = agent.summary
    clock = str(gpu.clock_mhz) if gpu.clock_mhz else NONE
    if gpu.clock_target_mhz != gpu.clock_mhz:
        clock += f"→{gpu.clock_target_mhz}"
    limits = [reason for reason in gpu.health.throttle if reason not in ORDINARY_LIMITS]
    clock += f" ({', '.join(limits)})" if limits else ""
    temperature = NONE if gpu.health.temperature_c is None else str(gpu.health.temperature_c)
    kv_used = 1 - gpu.kv_tokens_free / gpu.kv_tokens_total if gpu.kv_tokens_total else 0.0
    state = _state(gpu) or f"silent {agent.silent_ms / 1e3:.1f} s"
    late = bool(_state(gpu)) or agent.silent_ms > 1e3
    return (
        agent.agent + (f" ({state})" if late else ""),
        agent.device,
        clock,
        f"{gpu.sms_total - gpu.sms_free}/{gpu.sms_total}",
        str(sum(model.running for model in gpu.models)),
        str(sum(model.waiting for model in gpu.models)),
        f"{kv_used:.0%}",
        f"{gpu.power_w:.0f} {gpu.power_source}",
        f"{gpu.energy_j:.0f}",
        temperature,
        ", ".join(_model(model) for model in gpu.models) or NONE,
    )


def _state(gpu: GpuSummary) -> str:
    if gpu.parked:
        return "parked"
    return "being emptied" if gpu.draining else ""


def _cluster_title(cluster: Cluster) -> str:
    watts: dict[str, float] = {}
    for agent in cluster.agents:
        source = str(agent.summary.power_source)
        watts[source] = watts.get(source, 0.0) + agent.summary.power_w
    power = ", ".join(f"{value:.0f} W {source}" for source, value in watts.items())
    return (
        f"{len(cluster.agents)} agents, {len(cluster.deployments)} deployments, "
        f"{cluster.placed} placed, {cluster.refused} refused" + (f", {power}" if power else "")
    )


def _model(model: ModelSummary) -> str:
    state = "" if model.state is ModelState.READY else f" {model.state.name.lower()}"
    return f"{model.model}{state} {model.running}/{model.waiting}"


def _spread(spread: Spread) -> str:
    return f"{_ms(spread.p50_ms)} / {_ms(spread.p99_ms)}"


def _objective(value_ms: float | None) -> str:
    return NONE if value_ms is None else f"≤ {_ms(value_ms)}"


def _ms(value_ms: float | None) -> str:
    if value_ms is None:
        return NONE
    return f"{value_ms / 1e3:.2f} s" if value_ms >= 1e3 else f"{value_ms:.0f} ms"


def _joules(stats: DeploymentStats) -> tuple[str, str]:
    energy_j: Mapping[str, float] = stats.energy_j
    total = "\n".join(f"{value:.1f} {source}" for source, value in energy_j.items())
    tokens = max(stats.output_tokens, 1)
    each = "\n".join(f"{value / tokens:.3f}" for value in energy_j.values())
    return total or NONE, each or NONE
