"""Conversations with long histories."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from festina.simulator.workloads.folder import trace_file
from festina.simulator.workloads.lengths import LONG_CHAT
from festina.simulator.workloads.sources.recording import Recording, read_recording

PERIOD_S = 2100.0
# mooncake_conversation: 6,758 requests in 2,100 s, published in steps of three seconds.
_RATE = 3.218
_STEP_S = 3.0


def open_long_chat(traces: Path | None, rng: np.random.Generator) -> Recording:
    """Mooncake's conversation trace, or a stand-in."""
    if traces is None:
        return _stand_in(rng)
    return read_recording(trace_file(traces, LONG_CHAT.file), PERIOD_S)


def _stand_in(rng: np.random.Generator) -> Recording:
    count = int(rng.poisson(_RATE * PERIOD_S))
    steps = rng.integers(int(PERIOD_S / _STEP_S), size=count)
    inputs, outputs = LONG_CHAT.stand_in.draw(rng, count)
    return Recording(PERIOD_S, steps * _STEP_S, inputs, outputs, np.zeros(count, np.int64))
