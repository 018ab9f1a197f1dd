"""Valid values of a msgspec type, drawn from its declaration."""

from __future__ import annotations

from random import Random

from msgspec import inspect

NAMES = ("chat", "r", "gpu0", "tcp://127.0.0.1:7101")


def sample(kind: inspect.Type, rng: Random) -> object:
    """A value that the codec accepts for `kind`."""
    match kind:
        case inspect.IntType(ge=low, le=high):
            least = -(2**63) if low is None else low
            most = 2**63 - 1 if high is None else high
            drawn = rng.choice((least, most, 0, 1, 7, 128, rng.getrandbits(20)))
            return max(least, min(most, drawn))
        case inspect.FloatType(ge=low, le=high):
            return min(max(rng.random() * 100, low or 0.0), 1e9 if high is None else high)
        case inspect.StrType(min_length=low, max_length=high):
            text = rng.choice(NAMES)[: 20 if high is None else high]
            return text.ljust(low or 0, "x")
        case inspect.BytesType(max_length=high):
            return rng.randbytes(min(64 if high is None else high, rng.getrandbits(6)))
        case inspect.BoolType():
            return bool(rng.getrandbits(1))
        case inspect.NoneType():
            return None
        case inspect.VarTupleType(item_type=item, min_length=low):
            return tuple(sample(item, rng) for _ in range(max(low or 0, rng.getrandbits(2))))
        case inspect.TupleType(item_types=items):
            return tuple(sample(item, rng) for item in items)
        case inspect.UnionType(types=kinds):
            return sample(rng.choice(kinds), rng)
        case inspect.LiteralType(values=allowed):
            return rng.choice(allowed)
        case inspect.EnumType(cls=cls):
            return rng.choice(list(cls))
        case (
            inspect.StructType(cls=cls, fields=fields)
            | inspect.DataclassType(cls=cls, fields=fields)
        ):
            return cls(**{field.name: sample(field.type, rng) for field in fields})
    raise AssertionError(f"no sample of {kind}")
