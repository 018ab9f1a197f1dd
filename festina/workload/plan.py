"""From trace rows to requests: which deployment each one goes to, and what it asks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from festina.errors import BadRequestError, UnknownModelError
from festina.messages import DeploymentInfo
from festina.types import Sampling
from festina.workload.driver import PlannedRequest
from festina.workload.trace import TraceRow, assign_models, rename_models, shape_trace

PROMPT_IDS = range(32, 256)
"""Token ids of random prompts: in every vocabulary, above the usual special tokens."""


def choose_models(
    rows: Sequence[TraceRow], choices: Sequence[str], rng: np.random.Generator
) -> list[TraceRow]:
    """Rows with their deployments.

    Args:
        rows: By time.
        choices: All of the form `NAME[=WEIGHT]`: every row's deployment is drawn from them. All of
            the form `OLD:NEW`: names of the trace are replaced. None: the trace's own names.
        rng: Draws the deployments.

    Raises:
        BadRequestError: A choice cannot be read, both forms are mixed, or a row has no deployment.
    """
    renames = dict(choice.split(":", 1) for choice in choices if ":" in choice)
    drawn = [_weighted(choice) for choice in choices if ":" not in choice]
    if renames and drawn:
        raise BadRequestError(
            "both forms are used", field="--model", expected="only NAME[=WEIGHT], or only OLD:NEW"
        )
    named = assign_models(rows, drawn, rng) if drawn else rename_models(rows, renames)
    if not all(row.model for row in named):
        raise BadRequestError(
            "the trace names no deployments", field="--model", expected="at least one NAME"
        )
    return named


def plan_requests(
    rows: Sequence[TraceRow], deployments: Mapping[str, DeploymentInfo], rng: np.random.Generator
) -> list[PlannedRequest]:
    """Requests with random prompts and outputs of the rows' lengths, cut to the context.

    Raises:
        UnknownModelError: A row asks for a deployment that is not served.
    """
    return [_plan(row, deployments, rng) for row in rows]


def _plan(
    row: TraceRow, deployments: Mapping[str, DeploymentInfo], rng: np.random.Generator
) -> PlannedRequest:
    info = deployments.get(row.model)
    if info is None:
        raise UnknownModelError(
            f"the cluster does not serve {row.model!r}",
            field="model",
            expected="one of " + ", ".join(sorted(deployments)),
        )
    (fitted,) = shape_trace([row], context_tokens=info.context_tokens)
    prompt = rng.integers(PROMPT_IDS.start, PROMPT_IDS.stop, fitted.input_tokens)
    return PlannedRequest(
        due_s=row.t_s,
        model=row.model,
        slo=info.slo,
        max_tokens=fitted.output_tokens,
        sampling=Sampling(ignore_eos=True),
        token_ids=tuple(prompt.tolist()),
    )


def _weighted(choice: str) -> tuple[str, float]:
    name, equals, weight = choice.partition("=")
    try:
        value = float(weight) if equals else 1.0
    except ValueError:
        value = math.nan
    if not (name and 0 < value < math.inf):
        raise BadRequestError(
            f"cannot read {choice!r}", field="--model", expected="NAME or NAME=WEIGHT, weight > 0"
        )
    return name, value
