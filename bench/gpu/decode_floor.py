"""Decode of an 8B shape at batch 1: over the time to read the weights, and over plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable

from .figures import Outcome
from .rig import Rig, steady

SHAPE = "llama-8b"
CONTEXT = 128


def run(
    rig: Rig,
    bandwidth: Callable[[], float] | None = None,
    torch_decode_ms: Callable[[], float] | None = None,
) -> Outcome:
    """Ours, the floor and the rival in one run.

    Args:
        rig: Where.
        bandwidth: Bytes per second that the device reads; PyTorch's copy of a large tensor.
        torch_decode_ms: A step of plain PyTorch with a CUDA graph.
    """
    if bandwidth is None or torch_decode_ms is None:
        from . import torch_decode

        bandwidth = bandwidth or torch_decode.read_bytes_per_s
        torch_decode_ms = torch_decode_ms or (lambda: torch_decode.decode_ms(SHAPE, CONTEXT))
    with rig.model(SHAPE, 2 * CONTEXT, 2 * CONTEXT) as model:
        ours = steady(rig, rig.step(model, "decode", 1, CONTEXT, rig.whole))
        shape = model.shape
    bytes_per_s = bandwidth()  # the model is gone: both need its memory
    moved = shape.weight_bytes + CONTEXT * shape.kv_bytes_per_token
    floor_ms = 1e3 * moved / bytes_per_s
    rival_ms = torch_decode_ms()
    return Outcome(
        {
            "decode_8b_ms": ours.latency_ms,
            "decode_8b_over_floor": ours.latency_ms / floor_ms,
            "decode_8b_over_torch": ours.latency_ms / rival_ms,
            "decode_8b_torch_ms": rival_ms,
            "decode_8b_floor_ms": floor_ms,
            "device_read_gb_per_s": bytes_per_s / 1e9,
        }
    )
