"""Latency and watts against SMs: prefill, decode, and decode at part load."""

from __future__ import annotations

from .figures import Outcome, Series
from .rig import Rig, Steady, steady

SHAPE = "llama-8b"
PROMPT_TOKENS = 2048
BATCH = 16
CONTEXT = 1024
PACE_MS = 60.0
"""Decode at part load: a step every so often."""


def run(rig: Rig) -> Outcome:
    """Each kind of work on each rung, for as long as a window."""
    found: dict[str, dict[int, Steady]] = {"prefill": {}, "decode": {}, "decode, paced": {}}
    with rig.model(SHAPE, BATCH * (CONTEXT + 16) + PROMPT_TOKENS, CONTEXT + PROMPT_TOKENS) as model:
        for partition in rig.firsts:
            prefill = rig.step(model, "prefill", PROMPT_TOKENS, 0, partition)
            decode = rig.step(model, "decode", BATCH, CONTEXT, partition)
            found["prefill"][partition.sms] = steady(rig, prefill)
            found["decode"][partition.sms] = steady(rig, decode)
            found["decode, paced"][partition.sms] = steady(rig, decode, PACE_MS)
    whole, half = rig.whole.sms, rig.halves()[0].sms
    prefill_ms, decode_ms = (
        {sms: one.latency_ms for sms, one in found[work].items()} for work in ("prefill", "decode")
    )
    return Outcome(
        {
            "prefill_sm_half_share": prefill_ms[whole] / prefill_ms[half],
            "decode_sm_half_share": decode_ms[whole] / decode_ms[half],
            "decode_paced_whole_w": found["decode, paced"][whole].power_w,
            "decode_paced_half_w": found["decode, paced"][half].power_w,
        },
        [
            _series("latency of a step", "ms", found, lambda one: one.latency_ms),
            _series("power of the board", "W", found, lambda one: one.power_w),
            _series("SM clock", "MHz", found, lambda one: one.clock_mhz),
        ],
    )


def _series(name, unit, found, value) -> Series:
    lines = {
        work: [(float(sms), value(one)) for sms, one in sorted(rungs.items())]
        for work, rungs in found.items()
    }
    return Series(f"{name}, {SHAPE}", "SMs", unit, lines)
