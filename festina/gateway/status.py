"""The state of the cluster for the live page, and the last hour of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from msgspec import Struct

from festina.gateway.saved import Grown, Saved
from festina.messages import AgentInfo, Cluster
from festina.types import ModelState, ModelSummary

SAMPLE_S = 2.0
HISTORY_S = 3600.0


class Sample(Struct, frozen=True, array_like=True):
    """The cluster at one moment.

    Attributes:
        t_s: When, in seconds of the gateway's clock.
        power_w: Of all GPUs.
        awake: GPUs that are not parked.
        energy_j: Of all GPUs since their agents started.
        tokens: Generated since the gateway first heard of the agents, and before by them.
        running: Requests in decode.
        attainment: Share of requests within their objectives since the gateway started; None
            before the first has ended.
        clock_saved_j: Joules that lower clocks have saved since agents started; modelled.
        parking_saved_j: Joules that parked GPUs have saved; modelled.
    """

    t_s: float
    power_w: float
    awake: int
    energy_j: float
    tokens: int
    running: int
    attainment: float | None
    clock_saved_j: float
    parking_saved_j: float


class GpuStatus(Struct, frozen=True):
    """One GPU; see `festina.types.GpuSummary`."""

    name: str
    device: str
    state: str
    silent_s: float
    power_w: float
    power_source: str
    clock_mhz: int
    sms_free: int
    sms_total: int
    kv_used: float
    running: int
    waiting: int
    moving: int
    models: tuple[str, ...]


class ModelStatus(Struct, frozen=True):
    """One deployment over all GPUs."""

    name: str
    ttft_ms: float
    tbt_ms: float
    gpus: int
    running: int
    waiting: int
    requests: int
    tokens: int
    attainment: float | None
    joules_per_token: float | None


class Status(Struct, frozen=True):
    """What the page shows.

    Attributes:
        now_s: Seconds of the gateway's clock.
        placed: Requests placed since the scheduler started.
        refused: Requests refused.
        gpus: In order of their names.
        models: As deployed.
        history: Oldest first.
    """

    now_s: float
    placed: int
    refused: int
    gpus: tuple[GpuStatus, ...]
    models: tuple[ModelStatus, ...]
    history: tuple[Sample, ...]


class Shares(Struct, frozen=True):
    """What the gateway has seen of one model's requests.

    Attributes:
        good: Within their objectives.
        judged: Of so many.
        energy_j: Attributed to them.
        tokens: Generated.
    """

    good: int = 0
    judged: int = 0
    energy_j: float = 0.0
    tokens: int = 0

    @property
    def attainment(self) -> float | None:
        """Share within the objectives."""
        return self.good / self.judged if self.judged else None

    @property
    def joules_per_token(self) -> float | None:
        """Attributed joules for each generated token."""
        return self.energy_j / self.tokens if self.tokens else None


class History:
    """Samples of the last hour, one every `SAMPLE_S`.

    Args:
        saved: Told of each look at the cluster.
    """

    def __init__(self, saved: Saved) -> None:
        self._saved = saved
        self._tokens: dict[tuple[str, str], Grown] = {}
        self._samples: deque[Sample] = deque(maxlen=int(HISTORY_S / SAMPLE_S))

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)

    def add(self, cluster: Cluster, shares: dict[str, Shares], now: float) -> None:
        """Take a sample."""
        self._saved.see(cluster)
        summaries = [agent.summary for agent in cluster.agents]
        models = [model for summary in summaries for model in summary.models]
        judged = sum(share.judged for share in shares.values())
        self._samples.append(
            Sample(
                t_s=round(now, 3),
                power_w=round(sum(summary.power_w for summary in summaries), 3),
                awake=sum(not summary.parked for summary in summaries),
                energy_j=round(sum(summary.energy_j for summary in summaries), 3),
                tokens=self._count_tokens(cluster),
                running=sum(model.running for model in models),
                attainment=sum(share.good for share in shares.values()) / judged
                if judged
                else None,
                clock_saved_j=round(self._saved.clock_j, 3),
                parking_saved_j=round(self._saved.parking_j, 3),
            )
        )

    def _count_tokens(self, cluster: Cluster) -> int:
        """All that were generated; a model that is unloaded leaves the summaries, not this sum."""
        for agent in cluster.agents:
            for model in agent.summary.models:
                grown = self._tokens.setdefault((agent.agent, model.model), Grown())
                grown.see(agent.epoch, model.output_tokens_total)
        return round(sum(grown.total for grown in self._tokens.values()))


def status_of(
    cluster: Cluster, shares: dict[str, Shares], history: History, dead_s: float, now: float
) -> Status:
    """What the page shows now.

    Args:
        cluster: What the scheduler said last.
        shares: Of each model's requests through this gateway.
        history: Samples so far.
        dead_s: Silence after which an agent is taken for dead.
        now: Seconds of the gateway's clock.
    """
    agents = sorted(cluster.agents, key=lambda agent: agent.agent)
    return Status(
        now_s=round(now, 3),
        placed=cluster.placed,
        refused=cluster.refused,
        gpus=tuple(_gpu(agent, dead_s) for agent in agents),
        models=tuple(_models(cluster, shares)),
        history=tuple(history),
    )


def _gpu(agent: AgentInfo, dead_s: float) -> GpuStatus:
    summary = agent.summary
    total = summary.kv_tokens_total
    return GpuStatus(
        name=agent.agent,
        device=agent.device,
        state=_state(agent, dead_s),
        silent_s=round(agent.silent_ms / 1000, 3),
        power_w=round(summary.power_w, 2),
        power_source=summary.power_source.value,
        clock_mhz=summary.clock_mhz,
        sms_free=summary.sms_free,
        sms_total=summary.sms_total,
        kv_used=1.0 - summary.kv_tokens_free / total if total else 0.0,
        running=sum(model.running for model in summary.models),
        waiting=sum(model.waiting for model in summary.models),
        moving=summary.moving,
        models=tuple(model.model for model in summary.models if model.state is ModelState.READY),
    )


def _state(agent: AgentInfo, dead_s: float) -> str:
    if agent.silent_ms > dead_s * 1000:
        return "silent"
    if agent.summary.parked:
        return "parked"
    return "draining" if agent.summary.draining else "awake"


def _models(cluster: Cluster, shares: dict[str, Shares]) -> Iterator[ModelStatus]:
    hosted: dict[str, list[ModelSummary]] = {}
    for agent in cluster.agents:
        for model in agent.summary.models:
            hosted.setdefault(model.model, []).append(model)
    for deployment in cluster.deployments:
        hosts = hosted.get(deployment.model, [])
        share = shares.get(deployment.model, Shares())
        yield ModelStatus(
            name=deployment.model,
            ttft_ms=deployment.slo.ttft_ms,
            tbt_ms=deployment.slo.tbt_ms,
            gpus=sum(model.state is ModelState.READY for model in hosts),
            running=sum(model.running for model in hosts),
            waiting=sum(model.waiting for model in hosts),
            requests=sum(model.requests_total for model in hosts),
            tokens=sum(model.output_tokens_total for model in hosts),
            attainment=share.attainment,
            joules_per_token=share.joules_per_token,
        )
