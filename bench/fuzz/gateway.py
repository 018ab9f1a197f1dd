"""Targets that take HTTP requests: what reads their bodies, and the whole gateway around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import msgspec
from bench.fuzz.json_damage import damage_json
from bench.fuzz.mutators import mutate
from bench.fuzz.target import Target
from starlette.datastructures import Headers
from tests.support.gateway_backend import RoteBackend

from festina.config import Config, DeploymentConfig
from festina.errors import BadRequestError
from festina.gateway.app import build_app
from festina.gateway.fields import BOOKKEEPING, NEUTRAL_CHAT, NEUTRAL_TEXT, ChatBody, TextBody
from festina.gateway.keys import ApiKeys
from festina.gateway.openapi import description
from festina.gateway.parameters import Reader
from festina.gateway.shapes import DONE

CHAT = {
    "model": "chat", "messages": [{"role": "user", "content": "Where is the sea?"}], "n": 2,
    "max_tokens": 8, "temperature": 0.5, "top_p": 0.9, "seed": 7, "stream": True, "stop": ["."],
    "stream_options": {"include_usage": True}, "festina": {"ttft_ms": 500, "pace": 0.5},
}  # fmt: skip
TEXT = {"model": "chat", "prompt": ["a", "b"], "max_tokens": 4, "n": 1, "echo": False}
PARTS = [{"type": "text", "text": "Where"}, {"type": "text", "text": " is it?"}]
WHOLE = {"stream": False, "stream_options": None}
BODIES = (
    ("chat", CHAT),
    ("text", TEXT),
    ("chat", {**CHAT, **WHOLE, "min_tokens": 2, "ignore_eos": True}),
    ("chat", {**CHAT, "logprobs": True, "top_logprobs": 2}),
    ("text", {**TEXT, "logprobs": 3}),
    ("text", {**TEXT, "prompt": [1, 2, 3], "stream": True, "suffix": ""}),
    ("text", {**TEXT, "prompt": [[1, 2], [3]], "n": 3, "model": "mixed", "logit_bias": {}}),
    ("chat", {"model": "busy", "messages": [{"role": "system", "content": PARTS}], "tools": []}),
    ("chat", {"model": "long", "messages": CHAT["messages"], "user": "someone", "top_k": -1}),
    ("text", {"model": "lost", "prompt": "a", "stream": True}),
)  # fmt: skip
HEADERS = ("", "festina-pace: 0.5\nfestina-ttft-ms: 500", "festina-tbt-ms: 20")
SEPARATOR = b"\n\n"
"""Between what stands for the head of a request and its body."""
NAMES = sorted(
    {*ChatBody.__struct_fields__, *TextBody.__struct_fields__, *NEUTRAL_CHAT, *NEUTRAL_TEXT}
    | BOOKKEEPING | {"ttft_ms", "pace", "role", "content", "type", "text", "name", "unknown", ""}
)  # fmt: skip
MODELS = sorted({str(body["model"]) for _, body in BODIES})
PATHS = {"chat": "/v1/chat/completions", "text": "/v1/completions"}
DEPLOYMENTS = tuple(DeploymentConfig(name=name, weights="sim:llama-8b") for name in MODELS)
CONFIG = Config(deployments=DEPLOYMENTS)
LIMIT_S = 60.0


def damage(data: bytes, corpus: Sequence[bytes], rng: Random, intact: int) -> bytes:
    """Bytes of head or body, or values of the body: half of the inputs each."""
    if rng.getrandbits(1):
        return mutate(data, corpus, rng, intact)
    if rng.getrandbits(4) < intact:
        return data
    head, _, body = data.partition(SEPARATOR)
    bodies = [item.partition(SEPARATOR)[2] for item in corpus]
    try:
        damaged = damage_json(body, bodies, NAMES, rng)
    except (ValueError, RecursionError):  # `data` was damaged before, and is no JSON
        return mutate(data, corpus, rng, 0)
    return head + SEPARATOR + damaged


def bodies(_: Path) -> Target:
    """What is read becomes jobs, each with a name of its own and all within bounds."""
    reader = Reader({item.name: item for item in DEPLOYMENTS}, CONFIG.gateway)

    def take(data: bytes) -> None:
        kind, headers, body = _split(data)
        read = reader.chat if kind == "chat" else reader.text
        call = read(body, Headers(raw=headers))
        names = {job.submit.request_id for job in call.jobs}
        if not call.jobs or len(names) != len(call.jobs):
            raise AssertionError(f"{len(call.jobs)} jobs, {len(names)} names")

    return Target(_corpus(), lambda: take, damage=damage)


def http(_: Path) -> Target:
    """Requests through the whole gateway: whatever they hold, it answers as it says it does."""
    loop = asyncio.new_event_loop()
    described = description(MODELS)["paths"]

    def start() -> Callable[[bytes], None]:
        app = build_app(CONFIG, RoteBackend(), ApiKeys(()))

        def take(data: bytes) -> None:
            kind, headers, body = _split(data)
            path = PATHS[kind]
            exchange = Exchange(body, len(data))
            serve = app(_scope(path, headers), exchange.receive, exchange.send)
            loop.run_until_complete(asyncio.wait_for(serve, LIMIT_S))
            exchange.check({*described[path]["post"]["responses"]} - {"500"})
            if exchange.status != 200:
                raise BadRequestError(f"status {exchange.status}")

        return take

    return Target(_corpus(), start, damage=damage)


def _corpus() -> list[bytes]:
    return [
        f"{kind}\n{headers}".encode() + SEPARATOR + msgspec.json.encode(body)
        for kind, body in BODIES
        for headers in HEADERS
    ]


def _split(data: bytes) -> tuple[str, list[tuple[bytes, bytes]], bytes]:
    """Kind, headers and body; what is wrong with the head is taken as it is."""
    head, _, body = data.partition(SEPARATOR)
    kind, *lines = head.split(b"\n")
    pairs = [line.partition(b":") for line in lines]
    headers = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
    return "chat" if kind.startswith(b"c") else "text", headers, body


def _scope(path: str, headers: list[tuple[bytes, bytes]]) -> dict[str, object]:
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": [*headers, (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip


class Exchange:
    """The server's side of one request: a body in parts, then silence; the answer is kept.

    Args:
        body: What comes.
        draw: Decides in how many parts, and whether the client leaves in the midst of it.
    """

    def __init__(self, body: bytes, draw: int) -> None:
        size = max(1, -(-len(body) // (1 + draw % 3)))
        parts = [body[place : place + size] for place in range(0, len(body), size)] or [b""]
        self._leaves = draw % 61 == 0
        if self._leaves:
            parts = parts[:-1]
        self._parts: list[dict[str, object]] = [
            {"type": "http.request", "body": part, "more_body": True} for part in parts
        ]
        if self._leaves:
            self._parts.append({"type": "http.disconnect"})
        else:
            self._parts[-1]["more_body"] = False
        self._parts.reverse()
        self._statuses: list[int] = []
        self._headers: dict[bytes, bytes] = {}
        self._answer = bytearray()
        self._ended = False

    @property
    def status(self) -> int:
        """Of the answer."""
        return self._statuses[0]

    async def receive(self) -> dict[str, object]:
        """The next part; waits for ever after the last."""
        if self._parts:
            return self._parts.pop()
        return await asyncio.get_running_loop().create_future()

    async def send(self, message: dict) -> None:
        """A piece of the answer."""
        if message["type"] == "http.response.start":
            self._statuses.append(message["status"])
            self._headers = dict(message["headers"])
        else:
            self._answer += message["body"]
            self._ended = not message.get("more_body", False)

    def check(self, described: set[str]) -> None:
        """One whole answer, of a described status, in the form that it says it has.

        Raises:
            AssertionError: It is not.
        """
        if len(self._statuses) != 1 or not self._ended:
            raise AssertionError(f"answered {self._statuses}, ended {self._ended}")
        if str(self.status) not in described:
            raise AssertionError(f"answered {self.status}: {bytes(self._answer)!r}")
        if self._headers[b"content-type"].startswith(b"text/event-stream"):
            if self.status != 200 or not self._answer.endswith(DONE):
                raise AssertionError(f"a stream that ends with {bytes(self._answer[-99:])!r}")
            return
        if int(self._headers[b"content-length"]) != len(self._answer):
            raise AssertionError("another length than declared")
        answer = msgspec.json.decode(self._answer)
        if not ("choices" in answer if self.status == 200 else answer["error"]["message"]):
            raise AssertionError(f"{self.status} with {answer}")
