"""`azure-burst`: more models than memory holds, asked as rarely and suddenly as functions are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from festina.simulator.workloads.draft import Draft, Setting
from festina.simulator.workloads.lengths import CODE, CONVERSATION, INPUT_TOKENS_MAX
from festina.simulator.workloads.models import cycle_models
from festina.simulator.workloads.sources.functions import FIRST_MINUTE, open_functions
from festina.simulator.workloads.variants import refuse

DURATION_S = 3600.0
MODELS_PER_GPU = 8
RATE_PER_GPU = 0.75
MINUTES = range(600, 660)
CODE_SHARE = 0.3
VARIANTS = ("day",)


def build(setting: Setting, variants: Sequence[str]) -> Draft:
    """Calls of Azure functions in one hour, scaled to 0.75 requests/s per GPU, Poisson in a minute.

    30 % of the models get code lengths, the others conversations. Where there are more models than
    functions, functions are drawn again, each at a random time of their eight hours.
    """
    for variant in variants:
        refuse(variant, VARIANTS)
    rng = setting.rng
    models = cycle_models(MODELS_PER_GPU * setting.gpus)
    rates = _rates(setting, len(models))
    counts = rng.poisson(rates)
    model, minute = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    coding = rng.permutation(len(models)) < round(CODE_SHARE * len(models))
    talk = CONVERSATION.open(setting.traces).draw(rng, len(model))
    code = CODE.open(setting.traces).draw(rng, len(model))
    inputs, outputs = (np.where(coding[model], *pair) for pair in zip(code, talk, strict=True))
    return Draft(
        models,
        DURATION_S,
        t_s=(minute + rng.random(len(minute))) * 60.0,
        model=model,
        input_tokens=np.minimum(inputs, INPUT_TOKENS_MAX),
        output_tokens=outputs,
    )


def _rates(setting: Setting, count: int) -> np.ndarray:
    """Expected requests by model and minute, float64[count, 60]."""
    rng = setting.rng
    calls = open_functions(setting.traces, rng)
    again = count > len(calls)
    chosen = calls[rng.choice(len(calls), count, replace=again)]
    if again:
        shifts = rng.integers(chosen.shape[1], size=(count, 1))
        chosen = np.take_along_axis(
            chosen, (np.arange(chosen.shape[1]) + shifts) % chosen.shape[1], axis=1
        )
    hour = chosen[:, MINUTES.start - FIRST_MINUTE : MINUTES.stop - FIRST_MINUTE]
    wanted = RATE_PER_GPU * setting.gpus * setting.load * DURATION_S
    return np.asarray(hour * (wanted / hour.sum()))
