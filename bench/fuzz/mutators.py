"""Damage to bytes: seeded, so that a round of inputs comes back from its number."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

LEADS = bytes.fromhex("00017f808f909fa0bfc0") + bytes(range(0xC2, 0xE1)) + b"\xff"
"""First bytes of msgpack values of every type."""
WORDS = (
    b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"9" * 30, b'"', b"\\ud800", b"[" * 2000,
    b"{", b"}", b"[]", b"{}", b",", b":", b"\n", b"\x00", b"\xff\xfe", b"&a [*a]", b"!!python/x y",
    b"\xc3", b"2023-11-16 18:15:46", b"-0.0", b"1_000", b"\xd9\xa3", b"${x}", b"<<: *a", b"---\n",
)  # fmt: skip
"""What readers of text and JSON stumble over."""


def mutate(data: bytes, corpus: Sequence[bytes], rng: Random, intact: int) -> bytes:
    """`data` with one to four changes; `intact` times in 16 as it is."""
    if rng.getrandbits(4) < intact:
        return data
    draw = rng.getrandbits(4)
    frame = bytearray(data)
    for _ in range(1 + (draw & 3) * (draw >> 3)):
        _change(frame, corpus, rng)
    return bytes(frame)


def _change(frame: bytearray, corpus: Sequence[bytes], rng: Random) -> None:
    place = int(rng.random() * len(frame))
    end = place + 1 + rng.getrandbits(4)
    match rng.getrandbits(4):
        case 0 | 1 | 2 if frame:
            frame[place] ^= 1 << rng.getrandbits(3)
        case 3 | 4 if frame:
            frame[place] = LEADS[rng.getrandbits(8) % len(LEADS)]
        case 5 | 6 if frame:  # a length, a tag or a figure, by one
            frame[place] = (frame[place] + (1 if rng.getrandbits(1) else 255)) & 255
        case 7:
            del frame[place:]
        case 8:
            frame[place:place] = frame[place:end]
        case 9:
            del frame[place:end]
        case 10:
            other = corpus[rng.getrandbits(16) % len(corpus)]
            frame[place:] = other[min(place, len(other)) :]
        case 11:
            frame[place:end] = WORDS[rng.getrandbits(8) % len(WORDS)]
        case 12:
            frame[place:place] = rng.randbytes(1 + rng.getrandbits(3))
        case 13:
            frame[place : place + 4] = (2 ** (7 + rng.getrandbits(5)) - 1).to_bytes(5, "big")
        case _:
            frame[place:place] = WORDS[rng.getrandbits(8) % len(WORDS)]
