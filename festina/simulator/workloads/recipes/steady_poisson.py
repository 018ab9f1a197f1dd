"""`steady-poisson`: equally popular models, Poisson arrivals, chat lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from festina.simulator.workloads.draft import Draft, Setting
from festina.simulator.workloads.lengths import CHAT, INPUT_TOKENS_MAX
from festina.simulator.workloads.models import MODELS_PER_GPU, cycle_models
from festina.simulator.workloads.variants import number_after, refuse

DURATION_S = 3600.0
RATE_PER_MODEL = 0.25
VARIANTS = ("ix2", "ox2", "r0.1", "day")


def build(setting: Setting, variants: Sequence[str]) -> Draft:
    """Every model gets 0.25 requests/s; lengths of ShareGPT as in Aegaeon's 32-model trace.

    Variants: `ix2` doubles prompts, `ox2` doubles outputs, `rX` sets X requests/s per model.
    """
    rate, longer_input, longer_output = RATE_PER_MODEL, 1, 1
    for variant in variants:
        if variant == "ix2":
            longer_input = 2
        elif variant == "ox2":
            longer_output = 2
        else:
            rate = number_after("r", variant) or refuse(variant, VARIANTS)
    rng = setting.rng
    models = cycle_models(MODELS_PER_GPU * setting.gpus)
    # The sum of Poisson processes is one, and each of its events is any model's.
    count = int(rng.poisson(rate * setting.load * len(models) * DURATION_S))
    inputs, outputs = CHAT.open(setting.traces).draw(rng, count)
    return Draft(
        models,
        DURATION_S,
        t_s=rng.random(count) * DURATION_S,
        model=rng.integers(len(models), size=count),
        input_tokens=np.minimum(inputs * longer_input, INPUT_TOKENS_MAX),
        output_tokens=outputs * longer_output,
    )
