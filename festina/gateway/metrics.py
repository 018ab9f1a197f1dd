"""What the gateway saw of its requests, for Prometheus.

Names and buckets follow vLLM's, under our prefix, so that its dashboards need a new prefix only.
Model names come from the settings alone: strangers cannot make new time series.
"""

from __future__ import annotations

from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from festina.errors import CancelledError, FestinaError
from festina.gateway.errors import problem
from festina.gateway.status import Shares
from festina.report.stats import percentile
from festina.runtime.protocol.request import Ended
from festina.types import Slo

TTFT_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
GAP_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
LATENCY_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
TOKENS = tuple(step * 10**power for power in range(6) for step in (1, 2, 5))


class Metrics:
    """Counters and histograms in a registry of their own.

    Attributes:
        registry: For Prometheus.
        shares: Sums of each model's requests, for the live page.
    """

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        model = ("model_name",)
        self._ttft = _histogram(registry, "time_to_first_token_seconds", "Of requests", TTFT_S)
        self._gaps = _histogram(registry, "inter_token_latency_seconds", "Between tokens", GAP_S)
        self._latency = _histogram(
            registry, "e2e_request_latency_seconds", "From request to end", LATENCY_S
        )
        self._prompts = _histogram(registry, "request_prompt_tokens", "Of each request", TOKENS)
        self._outputs = _histogram(registry, "request_generation_tokens", "Of each request", TOKENS)
        self._success = Counter(
            "festina_request_success", "Requests that ended well",
            (*model, "finished_reason"), registry=registry,
        )  # fmt: skip
        self._failure = Counter(
            "festina_request_failure", "Requests that did not", (*model, "code"), registry=registry
        )
        self._prompt_tokens = Counter(
            "festina_prompt_tokens", "Prompt tokens of ended requests", model, registry=registry
        )
        self._output_tokens = Counter(
            "festina_generation_tokens", "Tokens of ended requests", model, registry=registry
        )
        self._energy = Counter(
            "festina_request_energy_joules", "Attributed to requests of this gateway",
            ("gpu", *model, "source"), registry=registry,
        )  # fmt: skip
        self._per_token = Gauge(
            "festina_joules_per_token", "Attributed joules per generated token, since the start",
            (*model, "source"), registry=registry,
        )  # fmt: skip
        self._attainment = Gauge(
            "festina_slo_attainment", "Share of requests within their objectives, since the start",
            model, registry=registry,
        )  # fmt: skip
        self._judged = Counter(
            "festina_slo_requests", "Requests within their objectives or not",
            (*model, "attained"), registry=registry,
        )  # fmt: skip
        self._costs: dict[tuple[str, str], tuple[float, int]] = {}
        self.shares: dict[str, Shares] = {}

    def ended(self, model: str, slo: Slo, end: Ended, elapsed_s: float) -> None:
        """A request ended well.

        Args:
            model: Deployment name.
            slo: Its objectives.
            end: How it ended.
            elapsed_s: From its start to its end.
        """
        usage = end.usage
        self._success.labels(model, end.reason.value).inc()
        self._latency.labels(model).observe(elapsed_s)
        self._prompts.labels(model).observe(usage.input_tokens)
        self._outputs.labels(model).observe(usage.output_tokens)
        self._prompt_tokens.labels(model).inc(usage.input_tokens)
        self._output_tokens.labels(model).inc(usage.output_tokens)
        if end.ttft_ms is not None:
            self._ttft.labels(model).observe(end.ttft_ms / 1000)
        gaps = self._gaps.labels(model)
        for gap_ms in end.gaps_ms:
            gaps.observe(gap_ms / 1000)
        self._pay(model, end)
        self._judge(model, attained=attained(slo, end))

    def failed(self, model: str, error: FestinaError) -> None:
        """A request ended badly. It counts against the objectives unless its caller is to blame."""
        self._failure.labels(model, error.code).inc()
        if problem(error).status >= 429 and not isinstance(error, CancelledError):
            self._judge(model, attained=False)

    def _pay(self, model: str, end: Ended) -> None:
        source, joules = end.usage.energy_source.value, end.usage.energy_j
        self._energy.labels(end.agent, model, source).inc(max(0.0, joules))
        before_j, before = self._costs.get((model, source), (0.0, 0))
        total_j, tokens = before_j + joules, before + end.usage.output_tokens
        self._costs[model, source] = (total_j, tokens)
        if tokens:
            self._per_token.labels(model, source).set(total_j / tokens)
        share = self.shares.get(model, Shares())
        self.shares[model] = replace(
            share,
            energy_j=share.energy_j + joules,
            tokens=share.tokens + end.usage.output_tokens,
        )

    def _judge(self, model: str, *, attained: bool) -> None:
        share = self.shares.get(model, Shares())
        share = replace(share, good=share.good + attained, judged=share.judged + 1)
        self.shares[model] = share
        self._judged.labels(model, str(attained).lower()).inc()
        self._attainment.labels(model).set(share.good / share.judged)


def attained(slo: Slo, end: Ended) -> bool:
    """Whether the first token and the p99 of the gaps came within the objectives."""
    if end.ttft_ms is None or end.ttft_ms > slo.ttft_ms:
        return False
    return not end.gaps_ms or percentile(end.gaps_ms, 99) <= slo.tbt_ms


def _histogram(
    registry: CollectorRegistry, name: str, text: str, buckets: tuple[float, ...]
) -> Histogram:
    return Histogram(f"festina_{name}", text, ("model_name",), registry=registry, buckets=buckets)
