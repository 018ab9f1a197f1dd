"""What a run of requests amounts to: percentiles, attainment, throughput, joules. Pure.

A request attains when it completes, its TTFT is within the objective, and the p99 of the gaps
between its tokens is within the TBT objective. With the nearest-rank percentile the p99 of fewer
than 100 gaps is the longest one. Attainment is the share of all submitted requests, so a request
that was refused or failed counts against it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from festina.types import Slo, Usage


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request as its client saw it.

    Attributes:
        model: Deployment name.
        slo: Its objectives.
        due_s: When it was due to be sent, on the run's clock; TTFT counts from here.
        token_s: Arrival of each output token, on the same clock, ascending.
        usage: What it cost; None when it did not complete.
        error: Code of the error that ended it, or "".
    """

    model: str
    slo: Slo
    due_s: float
    token_s: tuple[float, ...]
    usage: Usage | None
    error: str = ""

    @property
    def ttft_ms(self) -> float | None:
        """Time to the first token; None when there was none."""
        return 1e3 * (self.token_s[0] - self.due_s) if self.token_s else None

    @property
    def gaps_ms(self) -> list[float]:
        """Times between tokens."""
        return [
            1e3 * (later - earlier)
            for earlier, later in zip(self.token_s, self.token_s[1:], strict=False)
        ]

    @property
    def attained(self) -> bool:
        """Whether it completed within its objectives."""
        ttft_ms = self.ttft_ms
        if self.usage is None or ttft_ms is None or ttft_ms > self.slo.ttft_ms:
            return False
        gaps_ms = self.gaps_ms
        return not gaps_ms or percentile(gaps_ms, 99) <= self.slo.tbt_ms


class Spread(msgspec.Struct, frozen=True):
    """Two percentiles in milliseconds; None of an empty sample."""

    p50_ms: float | None
    p99_ms: float | None


class DeploymentStats(msgspec.Struct, frozen=True):
    """One deployment over a run.

    Attributes:
        model: Deployment name.
        slo: Objectives, when all its requests had the same.
        submitted: Requests sent.
        completed: Requests that ended well.
        errors: Error code → requests that ended with it.
        ttft: Time to first token.
        tbt: Time between tokens, over all gaps of all requests.
        attainment: Share of submitted requests that met their objectives, 0-1.
        input_tokens: Prompt tokens of completed requests.
        output_tokens: Tokens received.
        output_tokens_per_s: Tokens received over the length of the run.
        energy_j: Provenance → joules attributed to completed requests; never added up across.
        preemptions: Times a request lost its KV blocks and was prefilled again.
    """

    model: str
    slo: Mapping[str, float] | None
    submitted: int
    completed: int
    errors: Mapping[str, int]
    ttft: Spread
    tbt: Spread
    attainment: float
    input_tokens: int
    output_tokens: int
    output_tokens_per_s: float
    energy_j: Mapping[str, float]
    preemptions: int


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the least value that `share` % of `values` do not exceed.

    Raises:
        ValueError: `values` is empty, or `share` is outside (0, 100].
    """
    if not values or not 0 < share <= 100:
        raise ValueError("expected at least one value and a share in (0, 100]")
    rank = math.ceil(len(values) * share / 100)
    return sorted(values)[rank - 1]


def summarise(outcomes: Iterable[Outcome], duration_s: float) -> list[DeploymentStats]:
    """Statistics per deployment, in order of name.

    Args:
        outcomes: All requests of the run.
        duration_s: Length of the run, > 0: first due time to last token.
    """
    by_model: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_model.setdefault(outcome.model, []).append(outcome)
    return [_summary(model, by_model[model], duration_s) for model in sorted(by_model)]


def _summary(model: str, outcomes: list[Outcome], duration_s: float) -> DeploymentStats:
    usages = [outcome.usage for outcome in outcomes if outcome.usage is not None]
    received = sum(len(outcome.token_s) for outcome in outcomes)
    objectives = {(outcome.slo.ttft_ms, outcome.slo.tbt_ms) for outcome in outcomes}
    same = objectives.pop() if len(objectives) == 1 else None
    return DeploymentStats(
        model=model,
        slo={"ttft_ms": same[0], "tbt_ms": same[1]} if same else None,
        submitted=len(outcomes),
        completed=len(usages),
        errors=_count(outcome.error for outcome in outcomes if outcome.error),
        ttft=_spread([o.ttft_ms for o in outcomes if o.ttft_ms is not None]),
        tbt=_spread([gap for outcome in outcomes for gap in outcome.gaps_ms]),
        attainment=sum(outcome.attained for outcome in outcomes) / len(outcomes),
        input_tokens=sum(usage.input_tokens for usage in usages),
        output_tokens=received,
        output_tokens_per_s=received / duration_s,
        energy_j=_energy(usages),
        preemptions=sum(usage.preemptions for usage in usages),
    )


def _spread(values_ms: list[float]) -> Spread:
    if not values_ms:
        return Spread(None, None)
    return Spread(percentile(values_ms, 50), percentile(values_ms, 99))


def _energy(usages: list[Usage]) -> dict[str, float]:
    energy_j: dict[str, float] = {}
    for usage in usages:
        source = str(usage.energy_source)
        energy_j[source] = energy_j.get(source, 0.0) + usage.energy_j
    return energy_j


def _count(codes: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for code in codes:
        counts[code] = counts.get(code, 0) + 1
    return counts
