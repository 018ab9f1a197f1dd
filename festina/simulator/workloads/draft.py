"""What a recipe hands over, and how it becomes a workload."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from festina.device.physics import model_named
from festina.simulator.workload import Deployment, Workload
from festina.simulator.workloads.objectives import objectives_ms

Column = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """What recipes build for.

    Attributes:
        traces: Folder with recorded traces; None for synthetic stand-ins.
        gpus: How many, ≥ 1; models and rates grow with it.
        load: > 0; rates are multiplied by it.
        rng: The only source of chance.
    """

    traces: Path | None
    gpus: int
    load: float
    rng: np.random.Generator


@dataclass(frozen=True, slots=True)
class Draft:
    """Requests as columns of equal length, in any order unless a column says otherwise.

    Attributes:
        deployments: The models; `model` indexes them.
        duration_s: Length of the sending window.
        t_s: When each is sent; think time where it follows another.
        model: Index of its deployment.
        input_tokens: ≥ 1.
        output_tokens: ≥ 1.
        cached_tokens: Prefix hits; None for none.
        follows: -1 or the row of an earlier request; None for all -1.
    """

    deployments: tuple[Deployment, ...]
    duration_s: float
    t_s: Column
    model: Column
    input_tokens: Column
    output_tokens: Column
    cached_tokens: Column | None = None
    follows: Column | None = None

    def pick(self, rows: Column) -> Draft:
        """Some of the rows, by mask, of a draft in which none follows another."""
        return replace(
            self,
            t_s=self.t_s[rows],
            model=self.model[rows],
            input_tokens=self.input_tokens[rows],
            output_tokens=self.output_tokens[rows],
            cached_tokens=None if self.cached_tokens is None else self.cached_tokens[rows],
        )


def too_large(deployment: Deployment, memory_bytes: int) -> str:
    """Why a GPU with so much memory cannot serve it, or ""."""
    needed = model_named(deployment.shape).resident_bytes
    if needed < memory_bytes:
        return ""
    sizes = f"{needed / 2**30:.1f} GiB of weights, the GPU has {memory_bytes / 2**30:.1f} GiB"
    return f"{deployment.name} ({deployment.shape}) has {sizes}"


def finish(
    draft: Draft, *, name: str, slo: str, synthetic: bool, context_tokens: int | None = None
) -> Workload:
    """A workload: by arrival, within the models' contexts, with objectives.

    Requests that are longer than their model's context lose the tail of their output, then the
    head of their prompt, so that both keep at least one token; `clipped` counts them. A smaller
    `context_tokens` counts as the context of all models.

    Raises:
        UnsupportedModelError: A deployment has a shape that nobody knows.
        BadRequestError: No such objectives.
    """
    rows = len(draft.t_s)
    follows = np.full(rows, -1) if draft.follows is None else draft.follows
    order = np.lexsort((draft.t_s * (follows < 0), follows >= 0))  # stable: followers keep theirs
    place = np.empty(rows, np.int64)
    place[order] = np.arange(rows)
    follows = np.where(follows >= 0, place[follows], -1)[order]
    model = draft.model[order]
    inputs, outputs, clipped = _clip(draft, model, order, context_tokens)
    cached = np.zeros(rows) if draft.cached_tokens is None else draft.cached_tokens[order]
    ttft_ms, tbt_ms = objectives_ms(slo, inputs, outputs)
    return Workload(
        name=name,
        deployments=draft.deployments,
        duration_s=draft.duration_s,
        synthetic=synthetic,
        arrival_ms=(draft.t_s[order] * 1e3).astype(np.float64),
        model=model.astype(np.int32),
        input_tokens=inputs.astype(np.int32),
        cached_tokens=np.minimum(cached, inputs - 1).astype(np.int32),
        output_tokens=outputs.astype(np.int32),
        follows=follows.astype(np.int32),
        ttft_ms=ttft_ms,
        tbt_ms=tbt_ms,
        clipped=clipped,
    )


def _clip(
    draft: Draft, model: Column, order: Column, context_tokens: int | None
) -> tuple[Column, Column, int]:
    shapes = [model_named(deployment.shape) for deployment in draft.deployments]
    context = np.array([shape.context_tokens for shape in shapes])[model]
    if context_tokens is not None:
        context = np.minimum(context, context_tokens)
    inputs, outputs = draft.input_tokens[order], draft.output_tokens[order]
    clipped = int(np.count_nonzero(inputs + outputs > context))
    outputs = np.minimum(outputs, context - 1)
    return np.minimum(inputs, context - outputs), outputs, clipped
