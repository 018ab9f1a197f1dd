"""Targets that take frames: codecs, the logic behind them, KV blocks and keys."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import get_args

import msgspec
import zmq
from bench.fuzz.samples import sample
from bench.fuzz.target import Target
from msgspec import inspect

from festina.engine.hosted import frames
from festina.messages import AnyMessage, KvBlocks, decode, encode
from festina.runtime.protocol.block_inbox import BlockInbox
from festina.security.authorized import AuthorizedKeys
from festina.security.guard import ZAP_DOMAIN, Guard
from festina.security.identity import PublicKey
from festina.security.roles import Role

PER_KIND = 16


def wire_corpus() -> list[bytes]:
    """Frames of every message."""
    rng = Random(0)
    infos = [inspect.type_info(kind) for kind in get_args(AnyMessage)]
    return [encode(sample(info, rng)) for info in infos for _ in range(PER_KIND)]


def wire(_: Path) -> Target:
    """What is decoded is encoded and comes back equal."""

    def take(frame: bytes) -> None:
        message = decode(frame)
        again = encode(message)
        if encode(decode(again)) != again:  # bytes: NaN is not equal to itself
            raise AssertionError(f"{message} does not come back")

    return Target(wire_corpus(), lambda: take)


def hosted(_: Path) -> Target:
    """Header and body, as request and as reply."""
    rng = Random(0)
    infos = [inspect.type_info(kind) for kind in get_args(frames.Request | frames.Reply)]
    corpus = [frames.encode(sample(info, rng)) for info in infos for _ in range(PER_KIND)]

    def take(frame: bytes) -> None:
        header = frame[: frames.HEADER.size]
        if len(header) == frames.HEADER.size:  # the channel waits for all of it
            frames.body_bytes(header)
        body = frame[frames.HEADER.size :]
        if len(body) & 1:
            frames.decode_request(body)
        else:
            frames.decode_reply(body)

    return Target(corpus, lambda: take)


def blocks(_: Path) -> Target:
    """Pieces of KV blocks; the inbox holds whole blocks and no more than its window."""
    pieces = [bytes([n]) * 10 for n in range(4)]
    corpus = [
        encode(KvBlocks("k", n, 1, 10, 0, piece, zlib.crc32(piece)))
        for n, piece in enumerate(pieces)
    ] + [encode(KvBlocks("k", n, 2, 10, memory="/proc/1/fd/3")) for n in range(3)]

    def start() -> Callable[[bytes], None]:
        inbox = BlockInbox(window=4)

        def take(frame: bytes) -> None:
            message = decode(frame)
            if not isinstance(message, KvBlocks):
                return
            inbox.take(message)
            if inbox.accepted - inbox.imported > 4:
                raise AssertionError("more than the window is held")
            if message.count & 1 and (arrived := inbox.next()) is not None:
                size = arrived.count * arrived.block_bytes
                if not arrived.memory and len(arrived.data) != size:
                    raise AssertionError(f"{len(arrived.data)} bytes of {size}")
                inbox.done()

        return take

    return Target(corpus, start, intact=8)


def keys(folder: Path) -> Target:
    """A handshake's domain and key, then a message of that key's owner."""
    public = zmq.curve_keypair()[0].decode()
    template = {"name": "gpu", "role": Role.AGENT, "public_key": public}
    fields = PublicKey.__struct_fields__
    info = {**dict.fromkeys(fields, "2026-01-01T00:00:00Z"), **template}
    (folder / "gpu.key").write_bytes(msgspec.json.encode(info))
    guard_keys = AuthorizedKeys(folder, lambda: 0.0)
    owner = next(iter(guard_keys._keys.values()))
    guard = Guard(_identity(owner), guard_keys)
    head = f"{ZAP_DOMAIN}\0{public}\0".encode()

    def take(data: bytes) -> None:
        domain, _, rest = data.partition(b"\0")
        key, _, frame = rest.partition(b"\0")
        guard.callback(domain.decode("utf-8", "replace"), key)
        guard.check(key.decode("ascii", "replace"), decode(frame))

    return Target([head + frame for frame in wire_corpus()], lambda: take)


def _identity(owner: PublicKey) -> object:
    """Guards look at no more of an identity when they check."""
    return type("Identity", (), {"public": owner, "scheduler_key": owner.public_key})()
