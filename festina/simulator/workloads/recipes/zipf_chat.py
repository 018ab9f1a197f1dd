"""`zipf-chat`: few popular and many cold models, bursty arrivals, conversation lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from festina.simulator.workloads.arrivals import Intervals, merge, renew
from festina.simulator.workloads.draft import Draft, Setting
from festina.simulator.workloads.lengths import CONVERSATION, INPUT_TOKENS_MAX
from festina.simulator.workloads.models import MODELS_PER_GPU, cycle_models, zipf_shares
from festina.simulator.workloads.variants import number_after, refuse

DURATION_S = 3600.0
RATE_PER_GPU = 1.0
EXPONENT = 1.3
INTERVALS = Intervals.gamma(cv=2.0)
VARIANTS = ("0.9", "2.1", "day")


def build(setting: Setting, variants: Sequence[str]) -> Draft:
    """Popularity rank^-1.3, one request/s per GPU in all, Gamma intervals with CV 2.

    A variant `X` is another exponent.
    """
    exponent = EXPONENT
    for variant in variants:
        exponent = number_after("", variant) or refuse(variant, VARIANTS)
    rng = setting.rng
    models = cycle_models(MODELS_PER_GPU * setting.gpus)
    rates = zipf_shares(rng, len(models), exponent) * RATE_PER_GPU * setting.gpus * setting.load
    times, model = merge([renew(rng, INTERVALS, rate * DURATION_S) / rate for rate in rates])
    inputs, outputs = CONVERSATION.open(setting.traces).draw(rng, len(times))
    return Draft(
        models,
        DURATION_S,
        t_s=times,
        model=model,
        input_tokens=np.minimum(inputs, INPUT_TOKENS_MAX),
        output_tokens=outputs,
    )
