"""Targets that take files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.fuzz.target import Target
from tests.support.gguf_files import write_gguf
from tests.support.profile_text import HEAD, ROWS

from festina.config_load import load
from festina.control.profile_csv import read_profile
from festina.engine.architecture import read_config
from festina.engine.gguf_file import GgufFile
from festina.engine.tokenizer import GgufTokenizer
from festina.engine.weights import read_weights
from festina.profile_format import COLUMNS
from festina.workload.trace import read_trace

YAML = b"""\
gpus: sim:H100-SXM5-80GB*2
deployments:
  - {name: chat, weights: "sim:llama-8b", kv_tokens: 256, context_tokens: 128}
  - name: code
    weights: sim:qwen-14b
    slo: {ttft_ms: 500, tbt_ms: 50}
gateway: {http: "127.0.0.1:0", body_bytes_max: 1000}
agent: {batch_max: 4}
"""
AZURE = b"""\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""


def _file(folder: Path, name: str, corpus: list[bytes], read: Callable[[Path], object]) -> Target:
    path = folder / name

    def take(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    return Target(corpus, lambda: take)


def profile(folder: Path) -> Target:
    """Profile files."""
    text = HEAD + ",".join(COLUMNS) + "\n" + "\n".join(ROWS) + "\n"
    return _file(folder, "profile.csv", [text.encode()], read_profile)


def trace(folder: Path) -> Target:
    """Traces of requests, plain and Azure's."""
    plain = b"t_s,model,input_tokens,output_tokens\n0.5,chat,10,20\n1.5,code,30,40\n"
    return _file(folder, "trace.csv", [plain, AZURE], read_trace)


def config(folder: Path) -> Target:
    """Settings."""
    return _file(folder, "festina.yaml", [YAML], lambda path: load(path, {}, {}))


def gguf(folder: Path) -> Target:
    """Weights: the head of a file; its tensors are zeros."""
    whole = write_gguf(folder / "whole.gguf").read_bytes()
    kept = len(whole) - sum(
        tensor.data.nbytes for tensor in GgufFile(folder / "whole.gguf").tensors.values()
    )
    tail = bytes(len(whole) - kept)
    path = folder / "file.gguf"

    def take(data: bytes) -> None:
        path.write_bytes(data + tail)
        file = GgufFile(path)
        read_weights(file, read_config(file))
        GgufTokenizer(file)

    return Target([whole[:kept]], lambda: take)
