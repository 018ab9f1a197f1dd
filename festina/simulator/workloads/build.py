"""A workload by its name, or from a trace file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from festina.device.physics import GpuSpec, gpu_named
from festina.errors import BadRequestError
from festina.simulator.workload import Workload
from festina.simulator.workloads.day import PEAK, follow_day
from festina.simulator.workloads.draft import Draft, Setting, finish, too_large
from festina.simulator.workloads.files import read_file
from festina.simulator.workloads.recipes import (
    arena_flash,
    azure_burst,
    code_agent_long,
    steady_poisson,
    tenant_diurnal,
    zipf_chat,
)

DEFAULT_GPU = gpu_named("h100")

DAY = "day"
"""Variant of every open-loop workload: see `follow_day`."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One of the named workloads.

    Attributes:
        seed: Its own, used where the caller gives none.
        variants: Suffixes that evaluations use.
        build: Draws it.
    """

    seed: int
    variants: Sequence[str]
    build: Callable[[Setting, Sequence[str]], Draft]


RECIPES = MappingProxyType(
    {
        "steady-poisson": Recipe(101, steady_poisson.VARIANTS, steady_poisson.build),
        "zipf-chat": Recipe(202, zipf_chat.VARIANTS, zipf_chat.build),
        "azure-burst": Recipe(303, azure_burst.VARIANTS, azure_burst.build),
        "tenant-diurnal": Recipe(404, tenant_diurnal.VARIANTS, tenant_diurnal.build),
        "code-agent-long": Recipe(505, code_agent_long.VARIANTS, code_agent_long.build),
        "arena-flash": Recipe(606, arena_flash.VARIANTS, arena_flash.build),
    }
)
"""Name to recipe. A suffix such as `-ix2` chooses a variant."""

LOAD_MIN, LOAD_MAX = 1e-3, 1e3
"""Beyond these a workload is years long, or more than memory holds."""


def build_workload(
    name_or_path: str,
    *,
    traces: Path | None = None,
    gpus: int = 8,
    slo: str = "strict",
    load: float = 1.0,
    seed: int | None = None,
    gpu: GpuSpec = DEFAULT_GPU,
    shape: str | None = None,
    replicas: int | None = None,
    context_tokens: int | None = None,
) -> Workload:
    """A named workload or the requests of a trace file.

    Args:
        name_or_path: A name of `RECIPES`, perhaps with variants (`steady-poisson-ix2`; `-day` lets
            all models share one shape of a day), or a file: plain CSV, Azure's CSV or Mooncake's
            JSON lines, gzipped or not.
        traces: Folder with recorded traces; None builds a synthetic stand-in of the same shape.
        gpus: How many GPUs it is meant for; models and rates of recipes grow with it.
        slo: Set of objectives: strict, relaxed or loose.
        load: 0.001 to 1000. Rates are multiplied by it; times of a file are divided by it.
        seed: Of everything random here; None takes the recipe's own.
        gpu: Whose memory every model must fit.
        shape: Of the models of a file, see `read_file`.
        replicas: How many deployments serve a file that names no models; None: one per GPU.
        context_tokens: Longest prompt plus output, where models would allow more; requests beyond
            are shortened (`Workload.clipped`).

    Raises:
        BadRequestError: No such workload, variant, file or objectives; a trace is broken (`field`
            is `FILE:LINE:COLUMN`); a number is out of range; a model does not fit the GPU.
        UnsupportedModelError: `shape` is unknown.
    """
    _check_number("load", load, LOAD_MIN <= load <= LOAD_MAX, f"{LOAD_MIN:g} to {LOAD_MAX:g}")
    _check_number("gpus", gpus, gpus >= 1, "at least 1")
    _check_number("seed", seed, seed is None or seed >= 0, "an integer ≥ 0")
    _check_number("replicas", replicas, replicas is None or replicas >= 1, "at least 1")
    least = context_tokens is None or context_tokens >= 2
    _check_number("context_tokens", context_tokens, least, "at least 2")
    name, variants = _split(name_or_path)
    recipe = RECIPES.get(name)
    if recipe is not None:
        draft = _draw(recipe, variants, traces, gpus, load, seed)
        synthetic = traces is None
        _check_fit(draft, gpu)
    else:
        path = _existing(name_or_path)
        draft = read_file(
            path,
            replicas=replicas or gpus,
            load=load,
            shape=shape,
            memory_bytes=gpu.memory_bytes,
        )
        synthetic = False
    return finish(
        draft, name=name_or_path, slo=slo, synthetic=synthetic, context_tokens=context_tokens
    )


def _draw(
    recipe: Recipe,
    variants: list[str],
    traces: Path | None,
    gpus: int,
    load: float,
    seed: int | None,
) -> Draft:
    chance = np.random.Generator(np.random.PCG64(recipe.seed if seed is None else seed))
    if DAY not in variants:
        return recipe.build(Setting(traces, gpus, load, chance), variants)
    own = [variant for variant in variants if variant != DAY]
    return follow_day(recipe.build(Setting(traces, gpus, load * PEAK, chance), own), chance)


def _existing(path: str) -> Path:
    if not Path(path).is_file():
        raise BadRequestError(
            f"no workload or trace file is called {path!r}",
            field="workload",
            expected=f"a file, or one of {', '.join(RECIPES)}",
        )
    return Path(path)


def _check_fit(draft: Draft, gpu: GpuSpec) -> None:
    for deployment in draft.deployments:
        message = too_large(deployment, gpu.memory_bytes)
        if message:
            raise BadRequestError(message, field="gpu", expected="a GPU that holds every model")


def _check_number(field: str, value: float | None, good: bool, expected: str) -> None:
    if not good:
        raise BadRequestError(f"got {value}", field=field, expected=expected)


def _split(name: str) -> tuple[str, list[str]]:
    for known in RECIPES:
        if name == known or name.startswith(f"{known}-"):
            return known, name[len(known) + 1 :].split("-") if name != known else []
    return name, []
