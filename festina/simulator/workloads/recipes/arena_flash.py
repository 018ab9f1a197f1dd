"""`arena-flash`: a chat arena, where cold models become popular for two minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from festina.simulator.workloads.draft import Draft, Setting
from festina.simulator.workloads.lengths import ARENA, INPUT_TOKENS_MAX
from festina.simulator.workloads.models import cycle_models
from festina.simulator.workloads.sources.arena import MODELS, PERIOD_S, open_arena
from festina.simulator.workloads.sources.recording import Recording, join
from festina.simulator.workloads.variants import refuse

TILES = 6
COPIES = 3
GPUS = 8
FLASHES_S = (1200.0, 2400.0)
FLASH_S = 120.0
FLASH_MODELS = 3
FLASH_RATE = 2.0
COLDEST = 10
VARIANTS = ("day",)


def build(setting: Setting, variants: Sequence[str]) -> Draft:
    """27 models per 8 GPUs; three copies of the arena's ten minutes at random shifts, six times.

    At 1200 s and at 2400 s three of the ten coldest models of each 27 get 2 more requests/s for
    120 s. Fewer than 8 GPUs serve evenly spaced ranks of the 27, and get their share of requests.
    """
    for variant in variants:
        refuse(variant, VARIANTS)
    rng = setting.rng
    arena = open_arena(setting.traces, rng)
    groups = max(1, round(setting.gpus / GPUS))
    scale = setting.gpus / (GPUS * groups)
    served = _serve(arena, max(1, round(MODELS * min(1.0, scale))))
    count = int(served.model.max()) + 1
    times = COPIES * setting.load * scale * len(arena.t_s) / len(served.t_s)
    place = rng.permutation(count)  # so that a size is not always as popular
    parts: list[Recording] = []
    for group in range(groups):
        copies = join(served.copies(rng, times, shift=True)).tiled(TILES)
        parts += [
            replace(part, model=group * count + place[part.model])
            for part in [*copies, *_flashes(setting, scale, count)]
        ]
    everything = join(parts)
    return Draft(
        cycle_models(groups * count),
        TILES * PERIOD_S,
        t_s=everything.t_s,
        model=everything.model,
        input_tokens=np.minimum(everything.input_tokens, INPUT_TOKENS_MAX),
        output_tokens=everything.output_tokens,
    )


def _serve(arena: Recording, count: int) -> Recording:
    """The requests for `count` models of evenly spaced popularity, 0 being the most popular."""
    popular = np.argsort(-np.bincount(arena.model, minlength=MODELS), kind="stable")
    rank = np.full(MODELS, -1)
    rank[popular[np.arange(count) * MODELS // count]] = np.arange(count)
    served = arena.pick(rank[arena.model] >= 0)
    return replace(served, model=rank[served.model])


def _flashes(setting: Setting, scale: float, count: int) -> list[Recording]:
    """What the flashes add to a group of `count` models ordered by popularity."""
    rng = setting.rng
    lengths = ARENA.open(setting.traces)
    cold = np.arange(count)[-COLDEST:]
    found = []
    for start_s in FLASHES_S:
        chosen = rng.choice(cold, min(FLASH_MODELS, len(cold)), replace=False)
        rate = FLASH_RATE * setting.load * min(1.0, scale) * len(chosen)
        size = int(rng.poisson(rate * FLASH_S))
        times = start_s + rng.random(size) * FLASH_S
        found.append(Recording(PERIOD_S, times, *lengths.draw(rng, size), rng.choice(chosen, size)))
    return found
