"""What `festina demo` serves and asks: two deployments of the same weights, prompts in bursts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from festina.config import Config, DeploymentConfig
from festina.messages import ChatTurn
from festina.types import Sampling, Slo
from festina.workload.driver import PlannedRequest

WEIGHTS = "smollm2-135m"
INTERACTIVE = "interactive"
RELAXED = "relaxed"

OUTPUT_TOKENS: Mapping[str, tuple[int, int]] = {INTERACTIVE: (10, 20), RELAXED: (20, 40)}
"""Least and most output tokens of a request."""

QUESTIONS: tuple[str, ...] = (
    "What is {topic}? Answer in one sentence.",
    "Tell me a surprising fact about {topic}.",
    "Give me three words that describe {topic}.",
    "Why do people like {topic}?",
)

TASKS: tuple[str, ...] = (
    "Write a short story about {topic}, with a beginning, a middle and an end.",
    "Explain {topic} to a child, in plain words and with one example from daily life.",
    "List the steps to learn more about {topic}, with one sentence about each step.",
    "Write a friendly e-mail that invites a colleague to a talk about {topic} on Wednesday at "
    "noon, and says what to bring: a notebook, a question and some time for a walk afterwards.",
)

TOPICS: tuple[str, ...] = (
    "the moon",
    "baking bread",
    "the sea in winter",
    "honey bees",
    "bicycles",
    "a lighthouse",
    "autumn leaves",
    "steam trains",
    "black cats",
    "mountain lakes",
    "chess",
)


def demo_config(config: Config, weights: str) -> Config:
    """`config` with the demo's deployments, a free port, and steps short enough for a CPU.

    A chunk of 48 prompt tokens takes about 0.2 s on one core: decodes that wait for it still keep
    their objective. The wider margin is for the noise of a machine that others use too.
    """
    return msgspec.structs.replace(
        config,
        deployments=demo_deployments(weights),
        scheduler=msgspec.structs.replace(config.scheduler, endpoint="tcp://127.0.0.1:0"),
        agent=msgspec.structs.replace(config.agent, chunk_tokens=48, margin=0.2),
    )


def demo_deployments(weights: str) -> tuple[DeploymentConfig, DeploymentConfig]:
    """The same weights twice: answers while somebody watches, and work that can wait."""
    return (
        DeploymentConfig(
            name=INTERACTIVE,
            weights=weights,
            slo=Slo(ttft_ms=3000.0, tbt_ms=400.0),
            pace=0.0,
            kv_tokens=8192,
            preload=True,
        ),
        DeploymentConfig(
            name=RELAXED,
            weights=weights,
            slo=Slo(ttft_ms=20000.0, tbt_ms=750.0),
            pace=1.0,
            kv_tokens=8192,
            preload=True,
        ),
    )


def plan_demo(
    rng: np.random.Generator,
    slos: Mapping[str, Slo],
    *,
    bursts: int = 4,
    burst_requests: int = 10,
    burst_gap_s: float = 8.0,
    burst_spread_s: float = 1.0,
) -> list[PlannedRequest]:
    """Bursts of requests to both deployments, by due time.

    Args:
        rng: Draws due times and lengths.
        slos: Deployment → objectives.
        bursts: How many bursts.
        burst_requests: Requests in each, alternating between the deployments.
        burst_gap_s: Time from one burst to the next.
        burst_spread_s: Time over which a burst arrives.
    """
    requests = []
    for burst in range(bursts):
        for index in range(burst_requests):
            model = (INTERACTIVE, RELAXED)[index % 2]
            number = (burst * burst_requests + index) // 2
            requests.append(
                PlannedRequest(
                    due_s=burst * burst_gap_s + float(rng.uniform(0, burst_spread_s)),
                    model=model,
                    slo=slos[model],
                    max_tokens=int(rng.integers(*OUTPUT_TOKENS[model], endpoint=True)),
                    sampling=Sampling(),
                    turns=(ChatTurn("user", _prompt(model, number)),),
                )
            )
    return sorted(requests, key=lambda request: request.due_s)


def featured(requests: Sequence[PlannedRequest], each: int = 2) -> list[int]:
    """Indices of the requests whose text is shown: the first `each` of every deployment."""
    chosen: dict[str, list[int]] = {}
    for index, request in enumerate(requests):
        indices = chosen.setdefault(request.model, [])
        if len(indices) < each:
            indices.append(index)
    return sorted(index for indices in chosen.values() for index in indices)


def _prompt(model: str, number: int) -> str:
    prompts = QUESTIONS if model == INTERACTIVE else TASKS
    return prompts[number % len(prompts)].format(topic=TOPICS[number % len(TOPICS)])
