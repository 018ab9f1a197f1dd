"""Encoding and decoding of what travels most, beside plain rivals in the same run.

pytest bench/test_messages.py --benchmark-group-by=group
"""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest

from festina.messages import AnyMessage, Generate, Submit, Summary, Tokens, decode, encode
from festina.types import GpuSummary, ModelState, ModelSummary, Provenance, Slo

SLO = Slo(500.0, 100.0)
RESIDENTS = tuple(
    ModelSummary(f"model-{i}", ModelState.READY, 8, 2, 9000, 800, 100.0) for i in range(4)
)
GPU = GpuSummary(
    7, 1200, 1200, 132, 12, 15.5, 400_000, 120_000, 2**34, 310.5, Provenance.MEASURED, 1e5, False,
    RESIDENTS, (41, 42, 43),
)  # fmt: skip
SAMPLES: dict[str, AnyMessage] = {
    "submit": Submit("0123456789abcdef0123456789abcdef", "model-1", 512, 128, SLO),
    "generate": Generate("0" * 32, "model-1", 41, 5, 128, 1.5, SLO, token_ids=tuple(range(512))),
    "tokens": Tokens("0123456789abcdef0123456789abcdef", 17, (4711,), " sea"),
    "summary": Summary("gpu17", 5, GPU),
}


def plain(value: object) -> object:
    """What a program without message types would send: dicts by field name."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def msgpack_dict_encode(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def json_encode(value: object) -> bytes:
    return json.dumps(value).encode()


CODECS: dict[str, tuple[Callable, Callable, Callable]] = {
    "festina": (lambda message: message, encode, decode),
    "msgpack dict": (plain, msgpack_dict_encode, msgspec.msgpack.decode),
    "json dict": (plain, json_encode, json.loads),
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_encode(benchmark, sample: str, codec: str):
    prepare, encode_, _ = CODECS[codec]
    value = prepare(SAMPLES[sample])
    benchmark.group = f"encode {sample}"
    frame = benchmark(encode_, value)
    benchmark.extra_info["bytes"] = len(frame)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_decode(benchmark, sample: str, codec: str):
    prepare, encode_, decode_ = CODECS[codec]
    frame = encode_(prepare(SAMPLES[sample]))
    benchmark.group = f"decode {sample}"
    benchmark(decode_, frame)
