"""What the scheduler knows of the cluster, for Prometheus; and one look shared by all who ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from festina.errors import SchedulerLostError
from festina.gateway.account_metrics import account_metrics, saved_metric
from festina.gateway.choices import Backend
from festina.gateway.saved import Saved
from festina.messages import AgentInfo, Cluster
from festina.types import ModelState

ANSWER_S = 3.0
"""How long a scheduler may think before it is taken for lost."""
FRESH_S = 0.25
"""How long an answer serves others: however many ask, the scheduler answers four a second."""


class Glance:
    """The state of the cluster, asked for no more often than it changes.

    Args:
        backend: Asks the scheduler.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = asyncio.Lock()
        self._cluster: Cluster | None = None
        self._seen = 0.0

    async def cluster(self) -> Cluster:
        """What the scheduler said last, if that is fresh, or says now.

        Raises:
            SchedulerLostError: It does not answer.
        """
        async with self._lock:
            if self._cluster is None or time.monotonic() - self._seen > FRESH_S:
                self._cluster = await self._ask()
                self._seen = time.monotonic()
            return self._cluster

    async def _ask(self) -> Cluster:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._backend.cluster()
        except TimeoutError as error:
            raise SchedulerLostError(
                "the scheduler does not answer", expected=f"an answer within {ANSWER_S:g} s"
            ) from error


class ClusterCollector(Collector):
    """Gauges from the last look at the cluster; without one, only that there is none.

    Args:
        saved: What has been saved until that look.
    """

    def __init__(self, saved: Saved) -> None:
        self.cluster: Cluster | None = None
        self._saved = saved

    def collect(self) -> Iterator[Metric]:
        """All families. Called by the registry."""
        cluster = self.cluster
        yield _gauge("scheduler_up", "Whether the scheduler answers", float(cluster is not None))
        if cluster is None:
            return
        placements = CounterMetricFamily(
            "festina_placements", "Requests placed and refused", labels=("outcome",)
        )
        placements.add_metric(("placed",), cluster.placed)
        placements.add_metric(("refused",), cluster.refused)
        yield placements
        awake = sum(not agent.summary.parked for agent in cluster.agents)
        yield _gauge("gpus_awake", "GPUs that are not parked", awake)
        yield from _gpus(cluster.agents)
        yield from _models(cluster)
        yield from account_metrics(cluster.agents)
        yield saved_metric(self._saved)


def _gpus(agents: tuple[AgentInfo, ...]) -> Iterator[Metric]:
    power = GaugeMetricFamily("festina_power_watts", "Power now", labels=("gpu", "source"))
    clock = GaugeMetricFamily("festina_clock_mhz", "SM clock; 0 without one", labels=("gpu",))
    energy = CounterMetricFamily(
        "festina_gpu_energy_joules",
        "All that the GPU used since its agent started, idle time included",
        labels=("gpu", "source"),
    )
    sms = GaugeMetricFamily("festina_sm_partition", "SMs given to running steps", labels=("gpu",))
    parked = GaugeMetricFamily("festina_gpu_parked", "1 while it is parked", labels=("gpu",))
    draining = GaugeMetricFamily("festina_gpu_draining", "1 while it is emptied", labels=("gpu",))
    moving = GaugeMetricFamily(
        "festina_requests_moving", "On their way to another GPU", labels=("gpu",)
    )
    silence = GaugeMetricFamily(
        "festina_agent_silence_seconds", "Since the agent was last heard", labels=("gpu",)
    )
    temperature = GaugeMetricFamily(
        "festina_gpu_temperature_celsius", "Of the chip, where it has a sensor", labels=("gpu",)
    )
    throttled = GaugeMetricFamily(
        "festina_gpu_throttled", "1 for each reason why the clock is low", labels=("gpu", "reason")
    )
    for agent in agents:
        summary, source = agent.summary, agent.summary.power_source.value
        power.add_metric((agent.agent, source), summary.power_w)
        clock.add_metric((agent.agent,), summary.clock_mhz)
        energy.add_metric((agent.agent, source), summary.energy_j)
        sms.add_metric((agent.agent,), summary.sms_total - summary.sms_free)
        parked.add_metric((agent.agent,), float(summary.parked))
        draining.add_metric((agent.agent,), float(summary.draining))
        moving.add_metric((agent.agent,), summary.moving)
        silence.add_metric((agent.agent,), agent.silent_ms / 1000)
        if summary.health.temperature_c is not None:
            temperature.add_metric((agent.agent,), summary.health.temperature_c)
        for reason in summary.health.throttle:
            throttled.add_metric((agent.agent, reason), 1)
    yield from (power, clock, energy, sms, parked, draining, moving)
    yield from (silence, temperature, throttled)


def _models(cluster: Cluster) -> Iterator[Metric]:
    names = ("model_name",)
    running = GaugeMetricFamily("festina_num_requests_running", "In decode", labels=names)
    waiting = GaugeMetricFamily("festina_num_requests_waiting", "Before decode", labels=names)
    resident = GaugeMetricFamily("festina_model_gpus", "GPUs that hold the model", labels=names)
    kv_usage = GaugeMetricFamily(
        "festina_kv_cache_usage_perc",
        "Share of the KV pools in use (0-1) on the GPUs that hold the model",
        labels=names,
    )
    for deployment in cluster.deployments:
        hosts = [
            (agent.summary, model)
            for agent in cluster.agents
            for model in agent.summary.models
            if model.model == deployment.model
        ]
        name = (deployment.model,)
        running.add_metric(name, sum(model.running for _, model in hosts))
        waiting.add_metric(name, sum(model.waiting for _, model in hosts))
        resident.add_metric(name, sum(model.state is ModelState.READY for _, model in hosts))
        total = sum(gpu.kv_tokens_total for gpu, _ in hosts)
        used = total - sum(gpu.kv_tokens_free for gpu, _ in hosts)
        kv_usage.add_metric(name, used / total if total else 0.0)
    yield from (running, waiting, resident, kv_usage)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"festina_{name}", text, value=value)
