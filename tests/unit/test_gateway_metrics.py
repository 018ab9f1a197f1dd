import asyncio
from dataclasses import replace

import pytest
from gateway_backend import CLUSTER, END, RoteBackend, ask
from prometheus_client import CollectorRegistry

from festina.errors import (
    BadRequestError,
    CancelledError,
    OverloadedError,
    SchedulerLostError,
)
from festina.gateway.cluster_metrics import ClusterCollector, Glance
from festina.gateway.metrics import Metrics, attained
from festina.types import Slo

SLO = Slo(100.0, 10.0)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"festina_{name}", labels)


def test_a_good_end_is_counted_once_everywhere():
    metrics = Metrics()
    metrics.ended("chat", SLO, END, elapsed_s=0.5)
    registry = metrics.registry
    assert value(registry, "request_success_total", model_name="chat", finished_reason="stop") == 1
    assert value(registry, "prompt_tokens_total", model_name="chat") == 7
    assert value(registry, "generation_tokens_total", model_name="chat") == 4
    assert value(registry, "time_to_first_token_seconds_sum", model_name="chat") == 0.02
    assert value(registry, "inter_token_latency_seconds_count", model_name="chat") == 3
    assert value(registry, "e2e_request_latency_seconds_sum", model_name="chat") == 0.5
    energy = {"gpu": "gpu0", "model": "chat", "phase": "all", "source": "modelled"}
    assert value(registry, "energy_joules_total", **energy) == 0.5
    assert value(registry, "joules_per_token", model_name="chat", source="modelled") == 0.125
    assert value(registry, "slo_attainment", model_name="chat") == 1.0


@pytest.mark.parametrize(
    ("ttft_ms", "gaps_ms", "good"),
    [
        (100.0, (10.0,), True),
        (100.1, (1.0,), False),
        (1.0, (1.0, 10.1), False),
        (1.0, (), True),
        (None, (), False),
    ],
)
def test_attainment_is_the_first_token_and_the_p99_of_the_gaps(ttft_ms, gaps_ms, good):
    assert attained(SLO, replace(END, ttft_ms=ttft_ms, gaps_ms=gaps_ms)) is good


def test_only_our_own_failures_count_against_the_objectives():
    metrics = Metrics()
    metrics.ended("chat", SLO, END, elapsed_s=0.5)
    for error in (BadRequestError("?"), CancelledError("?")):
        metrics.failed("chat", error)
    assert value(metrics.registry, "slo_attainment", model_name="chat") == 1.0
    metrics.failed("chat", OverloadedError("?"))
    assert value(metrics.registry, "slo_attainment", model_name="chat") == 0.5
    codes = {"model_name": "chat", "code": "overloaded"}
    assert value(metrics.registry, "request_failure_total", **codes) == 1


def test_the_cluster_is_told_as_the_scheduler_sees_it():
    registry, collector = CollectorRegistry(), ClusterCollector()
    registry.register(collector)
    assert value(registry, "scheduler_up") == 0
    collector.cluster = CLUSTER
    assert value(registry, "scheduler_up") == 1
    assert value(registry, "placements_total", outcome="placed") == 5
    assert value(registry, "placements_total", outcome="refused") == 2
    assert value(registry, "gpus_awake") == 1
    assert value(registry, "power_watts", gpu="gpu0", source="modelled") == 300
    assert value(registry, "clock_mhz", gpu="gpu0") == 1200
    assert value(registry, "gpu_temperature_celsius", gpu="gpu0") == 61
    assert value(registry, "gpu_throttled", gpu="gpu0", reason="power cap") == 1
    assert value(registry, "gpu_energy_joules_total", gpu="gpu0", source="modelled") == 42
    assert value(registry, "num_requests_running", model_name="chat") == 3
    assert value(registry, "num_requests_waiting", model_name="chat") == 2
    assert value(registry, "kv_cache_usage_perc", model_name="chat") == 0.75
    assert value(registry, "kv_cache_usage_perc", model_name="lost") == 0


def test_strangers_make_no_time_series():
    backend = RoteBackend()
    ask(backend, "/v1/completions", {"model": "made-up-name", "prompt": "a"})
    assert "made-up-name" not in ask(backend, "/metrics").text


def test_many_looks_are_one_question():
    class Counting(RoteBackend):
        asked = 0

        async def cluster(self):
            self.asked += 1
            await asyncio.sleep(0)
            return CLUSTER

    async def run(backend):
        glance = Glance(backend)
        return await asyncio.gather(*(glance.cluster() for _ in range(50)))

    backend = Counting()
    assert asyncio.run(run(backend)) == [CLUSTER] * 50
    assert backend.asked == 1


def test_a_silent_scheduler_is_lost(monkeypatch):
    class Silent(RoteBackend):
        async def cluster(self):
            await asyncio.Event().wait()

    monkeypatch.setattr("festina.gateway.cluster_metrics.ANSWER_S", 0.01)

    async def look():
        return await Glance(Silent()).cluster()

    with pytest.raises(SchedulerLostError):
        asyncio.run(look())
