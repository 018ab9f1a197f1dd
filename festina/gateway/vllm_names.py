"""Our metrics under vLLM's names, so that its dashboards and autoscalers work unchanged."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

SHARED = frozenset(
    {
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "time_to_first_token_seconds",
        "inter_token_latency_seconds",
        "e2e_request_latency_seconds",
        "request_prompt_tokens",
        "request_generation_tokens",
        "request_success",
        "prompt_tokens",
        "generation_tokens",
    }
)
"""Metrics that mean the same in both."""

_OURS = "festina_"
_THEIRS = "vllm:"


class VllmNames(Collector):
    """The metrics of `SHARED` in another registry, renamed.

    Args:
        registry: Where they are; this collector must be registered elsewhere.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Called by the registry that this is registered in."""
        for metric in self._registry.collect():
            if metric.name.removeprefix(_OURS) not in SHARED:
                continue
            renamed = Metric(_theirs(metric.name), metric.documentation, metric.type, metric.unit)
            renamed.samples = [
                sample._replace(name=_theirs(sample.name)) for sample in metric.samples
            ]
            yield renamed


def vllm_registry(registry: CollectorRegistry) -> CollectorRegistry:
    """A registry with nothing but the renamed metrics of `registry`."""
    renamed = CollectorRegistry()
    renamed.register(VllmNames(registry))
    return renamed


def _theirs(name: str) -> str:
    return _THEIRS + name.removeprefix(_OURS)
