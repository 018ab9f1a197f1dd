"""Decode of an 8B shape at batch 1: over the time to read the weights, and over plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable

from .figures import Outcome
from .rig import Rig, steady

SHAPE = "llama-8b"
CONTEXT = 128


def run(
    rig: Rig,
    read_bytes_per_s: Callable[[], float] | None = None,
    copy_bytes_per_s: Callable[[], float] | None = None,
    torch_decode_ms: Callable[[], float] | None = None,
) -> Outcome:
    """Ours, the floor and the rival in one run.

    Args:
        rig: Where.
        read_bytes_per_s: Of a kernel that reads and writes nothing: a decode step reads its weights
            and writes next to nothing, so this is what bounds it.
        copy_bytes_per_s: Of PyTorch's copy of a large tensor, reads and writes counted; told beside
            it, since that is what others mean by a device's bandwidth.
        torch_decode_ms: A step of plain PyTorch with a CUDA graph.
    """
    if None in (read_bytes_per_s, copy_bytes_per_s, torch_decode_ms):
        from . import bandwidth, torch_decode

        read_bytes_per_s = read_bytes_per_s or bandwidth.read_bytes_per_s
        copy_bytes_per_s = copy_bytes_per_s or bandwidth.copy_bytes_per_s
        torch_decode_ms = torch_decode_ms or (lambda: torch_decode.decode_ms(SHAPE, CONTEXT))
    with rig.model(SHAPE, 2 * CONTEXT, 2 * CONTEXT) as model:
        ours = steady(rig, rig.step(model, "decode", 1, CONTEXT, rig.whole))
        shape = model.shape
    read, copied = read_bytes_per_s(), copy_bytes_per_s()  # the model is gone: they need its memory
    moved = shape.weight_bytes + CONTEXT * shape.kv_bytes_per_token
    floor_ms = 1e3 * moved / read
    rival_ms = torch_decode_ms()
    return Outcome(
        {
            "decode_8b_ms": ours.latency_ms,
            "decode_8b_over_floor": ours.latency_ms / floor_ms,
            "decode_8b_over_torch": ours.latency_ms / rival_ms,
            "decode_8b_torch_ms": rival_ms,
            "decode_8b_floor_ms": floor_ms,
            "device_read_gb_per_s": read / 1e9,
            "device_copy_gb_per_s": copied / 1e9,
        }
    )
