"""Damage to JSON that leaves it JSON: other values, names and shapes, where bytes seldom reach."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random

ATOMS: tuple[object, ...] = (
    None, True, False, 0, 1, -1, 2, 16, 17, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64,
    10**40, 0.5, -0.0, 1.5, 1e-300, 1e308, float("inf"), float("nan"), "", " ", "chat", "0.5",
    "nan", "\x00", "\ud800", "\u20ac\U0001f30a", "a" * 300, "developer", "text", "auto",
    [], {}, [[]], [None], [1, 2, 3], ["a", ""], [[1], ["a"]], [True], {"type": "text"},
    {"type": "text", "text": "x"}, {"include_usage": True}, {"role": "user", "content": []},
)  # fmt: skip
DEEP_MAX = 2000
"""Nesting beyond what readers stand to recurse into, but `json` still writes in parts."""

Slot = tuple[dict[str, object] | list[object], str | int]


def damage_json(text: bytes, corpus: Sequence[bytes], names: Sequence[str], rng: Random) -> bytes:
    """`text` with one to four values, names or shapes changed.

    Args:
        text: Valid JSON, an object at the top.
        corpus: More of that, to take values from.
        names: Keys that the reader may look for.
        rng: Decides.
    """
    value = json.loads(text)
    draw = rng.getrandbits(4)
    for _ in range(1 + (draw & 3) * (draw >> 3)):
        slots = _slots(value)
        if slots:
            _change(slots[int(rng.random() * len(slots))], corpus, names, rng)
    ascii_only = bool(rng.getrandbits(1))
    whole = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    if rng.getrandbits(8) == 0:
        depth = 1 + int(rng.random() * DEEP_MAX)
        return whole[:-1] + b', "messages": ' + b"[" * depth + b"]" * depth + b"}"
    return whole


def _slots(value: object) -> list[Slot]:
    """Every place that holds a value."""
    found: list[Slot] = []
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            found += [(one, key) for key in one]
            todo += one.values()
        elif isinstance(one, list):
            found += [(one, place) for place in range(len(one))]
            todo += one
    return found


def _change(slot: Slot, corpus: Sequence[bytes], names: Sequence[str], rng: Random) -> None:
    holder, key = slot
    value = holder[key]  # type: ignore[index]
    match rng.getrandbits(3):
        case 0:
            del holder[key]  # type: ignore[arg-type]
        case 1 if isinstance(holder, dict):
            holder[names[int(rng.random() * len(names))]] = holder.pop(str(key))
        case 2 if isinstance(holder, dict):
            holder[names[int(rng.random() * len(names))]] = _atom(rng)
        case 3:
            other = _slots(json.loads(corpus[int(rng.random() * len(corpus))]))
            there, place = other[int(rng.random() * len(other))]
            holder[key] = there[place]  # type: ignore[index]
        case 4:
            holder[key] = [value] * rng.getrandbits(5)  # type: ignore[index]
        case 5 if isinstance(value, int | float):
            holder[key] = value * (-1, 0.5, 2, 2**20)[rng.getrandbits(2)]  # type: ignore[index]
        case _:
            holder[key] = _atom(rng)  # type: ignore[index]


def _atom(rng: Random) -> object:
    atom = ATOMS[int(rng.random() * len(ATOMS))]
    return json.loads(json.dumps(atom)) if isinstance(atom, dict | list) else atom
