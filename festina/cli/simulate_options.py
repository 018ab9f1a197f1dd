"""What the options of `festina simulate` say, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from festina.device import physics
from festina.errors import BadRequestError
from festina.simulator.experiment import Value, gpu_name
from festina.simulator.sensitivity import SENSITIVITIES, with_setting

T = TypeVar("T")

ALL = "all"
SWITCH = {"true": True, "on": True, "false": False, "off": False}


def names(text: str, option: str, known: Iterable[str]) -> tuple[str, ...]:
    """Names separated by commas, each once, `all` standing for all known ones.

    Raises:
        BadRequestError: None is given, or one is unknown.
    """
    choices = tuple(known)
    found: dict[str, None] = {}
    for name in _words(text, option):
        if name not in choices and name != ALL:
            raise BadRequestError(
                f"{name!r} is unknown", field=option, expected=", ".join((*choices, ALL))
            )
        found.update(dict.fromkeys(choices if name == ALL else (name,)))
    return tuple(found)


def workloads(text: str, known: Iterable[str]) -> tuple[str, ...]:
    """Names or files separated by commas; `all` stands for all names, a file may have commas.

    Raises:
        BadRequestError: None is given.
    """
    if Path(text).is_file():
        return (text,)
    found: dict[str, None] = {}
    for name in _words(text, "--workload"):
        found.update(dict.fromkeys(known if name == ALL else (name,)))
    return tuple(found)


def gpu_of(name: str, settings: Sequence[str]) -> physics.GpuSpec:
    """The GPU, with its uncertain constants set by hand (`NAME=VALUE`).

    Raises:
        BadRequestError: No such GPU or constant, or a value out of range.
    """
    wanted = name.lower()
    known = {gpu_name(gpu): gpu for gpu in physics.GPUS.values()}
    gpus = {gpu.kind.lower(): gpu for gpu in physics.GPUS.values()} | known
    gpus |= {alias: gpu for gpu in physics.GPUS.values() for alias in gpu.aliases}
    if wanted not in gpus:
        raise BadRequestError(f"{name!r} is unknown", field="--gpu", expected=", ".join(known))
    gpu = gpus[wanted]
    for item in settings:
        constant, value = _pair(item, "--setting", "NAME=VALUE", _number)
        if constant not in SENSITIVITIES:
            raise BadRequestError(
                f"{constant!r} is unknown", field="--setting", expected=", ".join(SENSITIVITIES)
            )
        gpu = with_setting(gpu, constant, value)
    return gpu


def options(items: Sequence[str], policies: Sequence[str]) -> dict[str, dict[str, Value]]:
    """Policy → option → value, from `POLICY.NAME=VALUE`; the policy itself knows its options.

    Raises:
        BadRequestError: The policy does not run, or the value is none.
    """
    found: dict[str, dict[str, Value]] = {}
    for item in items:
        path, value = _pair(item, "--option", "POLICY.NAME=on, off or a number", _value)
        policy, _, name = path.partition(".")
        if policy not in policies:
            raise BadRequestError(
                f"{policy!r} does not run", field="--option", expected=", ".join(policies)
            )
        found.setdefault(policy, {})[name] = value
    return found


def window_s(text: str) -> tuple[float, float]:
    """`START:END` in seconds of simulated time.

    Raises:
        BadRequestError: It is nothing such.
    """
    expected = "START:END in seconds, 0 ≤ START < END"
    start, colon, end = text.partition(":")
    try:
        window = float(start), float(end)
    except ValueError:
        window = (math.nan, math.nan)
    if not colon or not 0 <= window[0] < window[1] < math.inf:
        raise BadRequestError(f"got {text!r}", field="--trace-window", expected=expected)
    return window


def _words(text: str, option: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise BadRequestError("nothing is named", field=option, expected=f"a name, or {ALL}")
    return words


def _pair(item: str, option: str, expected: str, read: Callable[[str], T | None]) -> tuple[str, T]:
    name, _, text = item.partition("=")
    value = read(text.strip())
    if value is None:
        raise BadRequestError(f"cannot read {item!r}", field=option, expected=expected)
    return name.strip(), value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _value(text: str) -> Value | None:
    return SWITCH[text.lower()] if text.lower() in SWITCH else _number(text)
