"""The shape of a day, which all models of a `-day` variant share."""

from __future__ import annotations

import numpy as np

from festina.errors import BadRequestError
from festina.simulator.workloads.draft import Draft

DAY_ENVELOPE = np.array(
    (
        *(0.79, 0.66, 0.48, 0.66, 0.64, 0.88, 0.34, 0.55, 0.75, 1.15, 1.81, 1.61),
        *(0.75, 1.11, 1.29, 1.62, 1.79, 1.56, 0.98, 0.82, 0.82, 1.10, 0.84, 1.00),
    )
)
"""Rate by hour over the day's mean: mean over ServeGen's 106 clients of day 1, each scaled to its
own mean. Many sources drawn independently smooth their total, which a real day does not."""
PEAK = float(DAY_ENVELOPE.max())


def follow_day(draft: Draft, rng: np.random.Generator) -> Draft:
    """Requests of `PEAK` times the wanted load, thinned to a day that lasts the whole window.

    Raises:
        BadRequestError: The workload has closed loops, which set their own pace.
    """
    if draft.follows is not None:
        raise BadRequestError(
            "closed loops have no day", field="workload", expected="a workload without sessions"
        )
    hour = (draft.t_s / draft.duration_s * len(DAY_ENVELOPE)).astype(int)
    return draft.pick(rng.random(len(draft.t_s)) < DAY_ENVELOPE[hour] / PEAK)
