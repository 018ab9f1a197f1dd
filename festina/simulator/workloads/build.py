"""A workload by its name, or from a trace file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from festina.errors import BadRequestError
from festina.simulator.workload import Workload
from festina.simulator.workloads.draft import Draft, Setting, finish
from festina.simulator.workloads.recipes import steady_poisson, zipf_chat


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
    }
)
"""Name to recipe. A suffix such as `-ix2` chooses a variant."""


def build_workload(
    name_or_path: str,
    *,
    traces: Path | None = None,
    gpus: int = 8,
    slo: str = "strict",
    load: float = 1.0,
    seed: int | None = None,
) -> Workload:
    """A named workload or the requests of a trace file.

    Args:
        name_or_path: A name of `RECIPES`, perhaps with variants (`steady-poisson-ix2`), or a file.
        traces: Folder with recorded traces; None builds a synthetic stand-in of the same shape.
        gpus: How many GPUs it is meant for; models and rates grow with it.
        slo: Set of objectives: strict, relaxed or loose.
        load: Rates are multiplied by it.
        seed: Of everything random here; None takes the recipe's own.

    Raises:
        BadRequestError: No such workload, variant, file or objectives; a trace is broken (`field`
            is `FILE:LINE:COLUMN`); a number is out of range.
        UnsupportedModelError: A trace asks for a shape that nobody knows.
    """
    _check_numbers(gpus, load, seed)
    name, variants = _split(name_or_path)
    recipe = RECIPES.get(name)
    if recipe is None:
        raise BadRequestError(
            f"no workload or trace file is called {name_or_path!r}",
            field="workload",
            expected=f"a file, or one of {', '.join(RECIPES)}",
        )
    chance = np.random.Generator(np.random.PCG64(recipe.seed if seed is None else seed))
    draft = recipe.build(Setting(traces, gpus, load, chance), variants)
    return finish(draft, name=name_or_path, slo=slo, synthetic=traces is None)


def _check_numbers(gpus: int, load: float, seed: int | None) -> None:
    if gpus < 1:
        raise BadRequestError(f"got {gpus}", field="gpus", expected="at least 1")
    if not (math.isfinite(load) and load > 0):
        raise BadRequestError(f"got {load}", field="load", expected="a number > 0")
    if seed is not None and seed < 0:
        raise BadRequestError(f"got {seed}", field="seed", expected="an integer ≥ 0")


def _split(name: str) -> tuple[str, list[str]]:
    for known in RECIPES:
        if name == known or name.startswith(f"{known}-"):
            return known, name[len(known) + 1 :].split("-") if name != known else []
    return name, []
