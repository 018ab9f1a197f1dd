import asyncio
from dataclasses import replace

import pytest
from gateway_backend import ACCOUNT, CLUSTER, END, SUMMARY, RoteBackend, ask
from msgspec.structs import replace as msgspec_replace
from prometheus_client import CollectorRegistry

from festina.errors import (
    BadRequestError,
    CancelledError,
    OverloadedError,
    SchedulerLostError,
)
from festina.gateway.cluster_metrics import ClusterCollector, Glance
from festina.gateway.metrics import Metrics, attained
from festina.gateway.saved import Saved
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
    energy = {"gpu": "gpu0", "model_name": "chat", "source": "modelled"}
    assert value(registry, "request_energy_joules_total", **energy) == 0.5
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
    registry, collector = CollectorRegistry(), ClusterCollector(Saved())
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


def test_energy_is_told_by_gpu_model_phase_and_source():
    registry, collector = CollectorRegistry(), ClusterCollector(Saved())
    registry.register(collector)
    collector.cluster = CLUSTER
    joules = {
        (model, phase): value(
            registry, "energy_joules_total", gpu="gpu0", model=model, phase=phase, source="modelled"
        )
        for model, phase in (("chat", "prefill"), ("chat", "decode"), ("", "idle"))
    }
    assert joules == {("chat", "prefill"): 4.0, ("chat", "decode"): 8.0, ("", "idle"): 30.0}
    assert sum(joules.values()) == SUMMARY.energy_j


def test_moves_and_wakes_are_told():
    registry, collector = CollectorRegistry(), ClusterCollector(Saved())
    registry.register(collector)
    collector.cluster = CLUSTER
    assert value(registry, "migrations_total", gpu="gpu0", kind="copy", outcome="moved") == 3
    assert value(registry, "migrations_total", gpu="gpu0", kind="recompute", outcome="kept") == 1
    assert value(registry, "migrations_total", gpu="gpu0", kind="recompute", outcome="lost") == 0
    assert value(registry, "wake_seconds_bucket", gpu="gpu0", le="0.25") == 0
    assert value(registry, "wake_seconds_bucket", gpu="gpu0", le="0.5") == 1
    assert value(registry, "wake_seconds_bucket", gpu="gpu0", le="1.0") == 3
    assert value(registry, "wake_seconds_count", gpu="gpu0") == 3
    assert value(registry, "wake_seconds_sum", gpu="gpu0") == 2.5
    assert value(registry, "trace_lost_events_total", gpu="gpu0") == 7


def test_an_agent_that_has_told_no_account_is_left_out_of_the_sums():
    registry, collector = CollectorRegistry(), ClusterCollector(Saved())
    registry.register(collector)
    agent = CLUSTER.agents[0]
    collector.cluster = msgspec_replace(CLUSTER, agents=(msgspec_replace(agent, account=None),))
    assert value(registry, "power_watts", gpu="gpu0", source="modelled") == 300
    assert value(registry, "wake_seconds_count", gpu="gpu0") is None


def test_what_was_saved_outlives_the_process_that_saved_it():
    def cluster(epoch, clock_j, parking_j):
        agent = CLUSTER.agents[0]
        account = msgspec_replace(ACCOUNT, clock_saved_j=clock_j)
        told = msgspec_replace(CLUSTER.consolidation, epoch=epoch, saved_j=parking_j)
        agent = msgspec_replace(agent, epoch=epoch, account=account)
        return msgspec_replace(CLUSTER, agents=(agent,), consolidation=told)

    saved = Saved()
    for state in (
        cluster(1, 5.0, 2.0),
        cluster(1, 8.0, 1.0),  # a wake costs
        cluster(2, 1.0, 3.0),
        cluster(1, 9.0, 9.0),  # of two schedulers, one has not heard of the new ones
        msgspec_replace(CLUSTER, agents=(), consolidation=None),
    ):
        saved.see(state)
    assert (saved.clock_j, saved.parking_j) == (9.0, 4.0)
    registry, collector = CollectorRegistry(), ClusterCollector(saved)
    registry.register(collector)
    collector.cluster = CLUSTER
    assert value(registry, "saved_joules", by="clock", source="modelled") == 9.0
    assert value(registry, "saved_joules", by="parking", source="modelled") == 4.0


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
