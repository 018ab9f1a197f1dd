"""Two models on one GPU: one prefills, the other decodes; taking turns, and on two halves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .figures import Outcome
from .rig import Job, Rig

PREFILLS, DECODES = "llama-8b", "llama-3b"
PROMPT_TOKENS = 1024
BATCH = 16
CONTEXT = 1024


def run(rig: Rig) -> Outcome:
    """Both ways for as long as two windows."""
    values: dict[str, float] = {}
    seconds = 2.0 * rig.window_s
    with (
        rig.model(PREFILLS, 2 * PROMPT_TOKENS, 2 * PROMPT_TOKENS) as prefills,
        rig.model(DECODES, BATCH * (CONTEXT + 16), CONTEXT + 16) as decodes,
    ):
        first, second = rig.halves()
        for name, places in (("whole", (rig.whole, rig.whole)), ("halves", (second, first))):
            prompt = rig.step(prefills, "prefill", PROMPT_TOKENS, 0, places[0])
            tokens = rig.step(decodes, "decode", BATCH, CONTEXT, places[1])
            jobs = [lambda one=one: rig.engine.step(one) for one in (prompt, tokens)]
            begun: list[float] = []

            def begin(begun: list[float] = begun) -> None:
                begun += [rig.clock(), rig.gpu.energy_j()]

            if name == "whole":
                gaps_ms, steps = _turns(rig, jobs, seconds, begin)
            else:
                ran = rig.together(jobs, seconds, begin)
                gaps_ms, steps = [one.latency_ms for one in ran[1]], [len(one) for one in ran]
            start, start_j = begun
            elapsed_s, used_j = rig.clock() - start, rig.gpu.energy_j() - start_j
            done = PROMPT_TOKENS * steps[0] + BATCH * steps[1]
            values |= {
                f"pair_{name}_tbt_p99_ms": float(np.quantile(gaps_ms, 0.99)),
                f"pair_{name}_prefill_tokens_per_s": PROMPT_TOKENS * steps[0] / elapsed_s,
                f"pair_{name}_decode_tokens_per_s": BATCH * steps[1] / elapsed_s,
                f"pair_{name}_j_per_token": used_j / done,
                f"pair_{name}_w": used_j / elapsed_s,
            }
    return Outcome(values)


def _turns(
    rig: Rig, jobs: Sequence[Job], seconds: float, begin: Callable[[], None]
) -> tuple[list[float], list[int]]:
    """One after the other: a decode waits for the prefill before it. Gaps in ms, and steps."""
    for job in jobs:
        job()
    begin()
    last, gaps_ms, steps = rig.clock(), [], 0
    end = last + seconds
    while last < end:
        for job in jobs:
            job()
        now = rig.clock()
        gaps_ms.append(1e3 * (now - last))
        last, steps = now, steps + 1
    return gaps_ms, [steps, steps]
