"""Ten minutes of a chat arena with 27 models of very different popularity."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from festina.errors import BadRequestError
from festina.simulator.workloads.folder import trace_file
from festina.simulator.workloads.lengths import ARENA
from festina.simulator.workloads.sources.recording import Recording
from festina.workload import table

PERIOD_S = 600.0
MODELS = 27
# Requests per model of arena_27models_10min (Prism, arXiv 2505.04021), 1,500 in all.
_REQUESTS = np.array(
    (
        *(199, 40, 296, 22, 66, 120, 67, 56, 36, 23, 262, 26, 43, 44),
        *(22, 46, 25, 3, 12, 19, 31, 2, 19, 11, 2, 7, 1),
    )
)


def open_arena(traces: Path | None, rng: np.random.Generator) -> Recording:
    """The arena's trace, or a stand-in.

    Raises:
        BadRequestError: The trace names a model beyond the 27.
    """
    if traces is None:
        return _stand_in(rng)
    path = trace_file(traces, ARENA.file)
    cells = {
        "t_s": table.SECONDS,
        "model": table.COUNT,
        "input_tokens": table.TOKENS,
        "output_tokens": table.TOKENS,
    }
    columns = table.read_columns(path, cells)
    if columns["model"].max() >= MODELS:
        raise BadRequestError(
            f"{path} names model {columns['model'].max()}",
            field="model",
            expected=f"0 to {MODELS - 1}",
        )
    return Recording(
        PERIOD_S,
        columns["t_s"] % PERIOD_S,
        columns["input_tokens"],
        columns["output_tokens"],
        columns["model"],
    )


def _stand_in(rng: np.random.Generator) -> Recording:
    count = int(rng.poisson(_REQUESTS.sum()))
    inputs, outputs = ARENA.stand_in.draw(rng, count)
    model = rng.choice(MODELS, count, p=_REQUESTS / _REQUESTS.sum())
    return Recording(PERIOD_S, rng.random(count) * PERIOD_S, inputs, outputs, model)
