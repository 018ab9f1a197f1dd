"""Requests to a code assistant: bursts of many, then nothing for a while."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from festina.simulator.workloads.folder import trace_file
from festina.simulator.workloads.lengths import CODE
from festina.simulator.workloads.sources.recording import Recording, read_recording

SLICE_S = 10.0
PERIOD_S = 2100.0
# Of the 238 ten-second slices of azure_llm_2023_code (intervals' CV 13): idle and busy runs of
# about seven slices, half of them idle; requests in a busy slice have these ln mean and deviation.
_STAY = 0.85
_SLICE_LN = (3.66, 1.05)
_SLICE_MAX = 300


def open_code(traces: Path | None, rng: np.random.Generator) -> Recording:
    """Azure's code trace, or a stand-in."""
    if traces is None:
        return _stand_in(rng)
    return read_recording(trace_file(traces, CODE.file), PERIOD_S)


def _stand_in(rng: np.random.Generator) -> Recording:
    slices = int(PERIOD_S / SLICE_S)
    busy = np.logical_xor.accumulate(rng.random(slices) > _STAY)
    counts = np.minimum(rng.lognormal(*_SLICE_LN, slices), _SLICE_MAX) * busy
    start_s = np.repeat(np.arange(slices) * SLICE_S, counts.astype(int))
    inputs, outputs = CODE.stand_in.draw(rng, len(start_s))
    return Recording(
        PERIOD_S,
        start_s + rng.random(len(start_s)) * SLICE_S,
        inputs,
        outputs,
        np.zeros(len(start_s), np.int64),
    )
