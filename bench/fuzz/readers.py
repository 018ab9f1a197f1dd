"""Targets that take bodies and files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
from bench.fuzz.target import Target
from tests.support.gateway_backend import RoteBackend
from tests.support.gguf_files import write_gguf
from tests.support.profile_text import HEAD, ROWS

from festina.config import Config, DeploymentConfig
from festina.config_load import load
from festina.control.profile_csv import read_profile
from festina.engine.architecture import read_config
from festina.engine.gguf_file import GgufFile
from festina.engine.tokenizer import GgufTokenizer
from festina.engine.weights import read_weights
from festina.errors import BadRequestError
from festina.gateway.app import build_app
from festina.gateway.keys import ApiKeys
from festina.profile_format import COLUMNS
from festina.workload.trace import read_trace

CHAT = {
    "model": "chat", "messages": [{"role": "user", "content": "Where is the sea?"}], "n": 2,
    "max_tokens": 8, "temperature": 0.5, "top_p": 0.9, "seed": 7, "stream": True, "stop": ["."],
    "stream_options": {"include_usage": True}, "festina": {"ttft_ms": 500, "pace": 0.5},
}  # fmt: skip
TEXT = {"model": "chat", "prompt": ["a", "b"], "max_tokens": 4, "n": 1, "echo": False}
BODIES = (
    CHAT, TEXT, {**CHAT, "stream": False}, {**TEXT, "prompt": [1, 2, 3], "stream": True},
)  # fmt: skip
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


def http(_: Path) -> Target:
    """Bodies through the whole gateway: whatever they hold, the answer is below 500."""
    deployments = (DeploymentConfig(name="chat", weights="sim:llama-8b"),)
    app = build_app(Config(deployments=deployments), RoteBackend(), ApiKeys(()))
    loop = asyncio.new_event_loop()

    def take(data: bytes) -> None:
        statuses: list[int] = []
        path = "/v1/chat/completions" if b"messages" in data else "/v1/completions"
        loop.run_until_complete(asyncio.wait_for(app(_scope(path), *_ends(data, statuses)), 60))
        if len(statuses) != 1 or statuses[0] >= 500:
            raise AssertionError(f"answered {statuses}")
        if statuses[0] >= 400:
            raise BadRequestError(f"status {statuses[0]}")

    return Target([msgspec.json.encode(body) for body in BODIES], lambda: take)


def _scope(path: str) -> dict[str, object]:
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip


def _ends(data: bytes, statuses: list[int]) -> tuple[Callable, Callable]:
    """What the server gives an application: one body and then silence; its status is kept."""
    parts = [{"type": "http.request", "body": data, "more_body": False}]

    async def receive() -> dict[str, object]:
        if parts:
            return parts.pop()
        return await asyncio.get_running_loop().create_future()

    async def send(message: dict) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    return receive, send


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
