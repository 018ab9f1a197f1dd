"""Reads settings: flag > environment > file > default; every mistake is named with its place.

A layer is a nest of plain values from one source. Layers are laid over each other and then checked
value by value against the types of `Config`, so an error can say which source holds the bad value.

Environment: `FESTINA_` plus the dotted path in capitals, `__` for each dot
(`FESTINA_SCHEDULER__ENDPOINT`). `FESTINA_CONFIG` names the file. `FESTINA_DEPLOYMENTS` takes
deployments as `--deploy` does, separated by `;`.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    TypeAlias,
    TypeGuard,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import Meta

from festina.config import Config, Positive
from festina.errors import ConfigError
from festina.types import Slo

ENV_PREFIX = "FESTINA_"

DEPTH_MAX = 8
"""Levels of settings and more: none is deeper than four."""

ENV_FILE = "FESTINA_CONFIG"
_NO_SETTINGS = frozenset({ENV_FILE, "FESTINA_FAILPOINTS", "FESTINA_FAILPOINTS_SEED"})
"""Variables with the prefix that say something else; see `festina.runtime.failpoints`."""
DEFAULT = "default"

Hints = dict[str, object]

_Struct = TypeVar("_Struct", bound=msgspec.Struct)

_OBJECTIVES: Hints = {"ttft_ms": Positive, "tbt_ms": Positive}
"""On the wire objectives are checked with their request; in settings, here."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Effective settings.

    Attributes:
        config: The tree.
        sources: Dotted path of each leaf → "default", "file …", "environment …" or "flag …".
    """

    config: Config
    sources: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Sourced:
    """A raw value and where it was found. `text` values are parsed, others must have the type."""

    value: object
    source: str
    text: bool


Raw: TypeAlias = "dict[str, Raw] | _Sourced"
Layer: TypeAlias = dict[str, Raw]


def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Settings from all sources.

    Args:
        file: YAML file; None takes `FESTINA_CONFIG`, or no file.
        environment: Variables; only those that start with `FESTINA_` matter.
        flags: Dotted path → value (text is parsed), or "deployments" → list of `--deploy` texts.

    Raises:
        ConfigError: A key is unknown, or a value has the wrong type or is out of range. `field` is
            the dotted path, the message names the source, `expected` says what would do.
    """
    environment = environment or {}
    if file is None and environment.get(ENV_FILE):
        file = Path(environment[ENV_FILE])
    merged: Layer = {}
    if file is not None:
        _overlay(merged, _file_layer(file))
    _overlay(merged, _environment_layer(environment))
    _overlay(merged, _flag_layer(flags or {}))
    sources: dict[str, str] = {}
    config = _build_struct(Config, merged, "", sources)
    _check_names(config)
    return Settings(config, sources)


def parse_deployment(text: str) -> dict[str, object]:
    """A deployment written as `NAME=WEIGHTS[,key=value…]`, as a nest of texts.

    Keys are those of `DeploymentConfig`; `ttft_ms` and `tbt_ms` are short for `slo.…`.

    Raises:
        ConfigError: It has another form.
    """
    head, *rest = text.split(",")
    name, equals, weights = head.partition("=")
    if not (name.strip() and equals and weights.strip()):
        raise _bad(text, "deployments", "NAME=WEIGHTS[,ttft_ms=…,tbt_ms=…,pace=…]")
    deployment: dict[str, object] = {"name": name.strip(), "weights": weights.strip()}
    objectives: dict[str, object] = {}
    for item in rest:
        key, equals, value = item.partition("=")
        if not equals:
            raise _bad(item, "deployments", "key=value")
        key = key.strip()
        nest = objectives if key in _OBJECTIVES else deployment
        if key in nest:
            raise _bad(f"a second {key}", "deployments", "each key once")
        nest[key] = value.strip()
    return deployment | ({"slo": objectives} if objectives else {})


def expected_of(hint: object) -> str:
    """What values of a type are allowed, in words."""
    base, meta = _unwrap(hint)
    origin = get_origin(base)
    if origin is typing.Literal:
        return "one of " + ", ".join(get_args(base))
    if base is bool:
        return "true or false"
    words = {int: "an integer", float: "a number", str: "text"}.get(base, "a list")
    bounds = [
        f"{sign} {bound:.10g}"
        for sign, bound in (
            (">", meta.gt if meta else None),
            ("≥", meta.ge if meta else None),
            ("<", meta.lt if meta else None),
            ("≤", meta.le if meta else None),
        )
        if bound is not None
    ]
    if meta is not None and meta.pattern:
        bounds.append(f"of the form {meta.pattern}")
    return " ".join([words, " and ".join(bounds)]).strip()


def fields_of(struct: type[msgspec.Struct]) -> Hints:
    """Field name → type, in order; objectives with their bounds."""
    return _OBJECTIVES if struct is Slo else get_type_hints(struct, include_extras=True)


def element_of(hint: object) -> type[msgspec.Struct] | None:
    """The struct that a list setting holds, or None for other types."""
    base, _ = _unwrap(hint)
    if get_origin(base) is tuple:
        return typing.cast("type[msgspec.Struct]", get_args(base)[0])
    return None


def is_struct(hint: object) -> TypeGuard[type[msgspec.Struct]]:
    """Whether a setting is a section of further settings."""
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


# Layers

NO_YAML = (msgspec.DecodeError, ValueError, LookupError, AttributeError)
"""A scalar that is not of the type it looks like or claims raises what PyYAML runs into with it."""


def _file_layer(file: Path) -> Layer:
    source = f"file {file}"
    try:
        raw = msgspec.yaml.decode(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}", field="config") from error
    except NO_YAML as error:
        raise ConfigError(f"{file} is not YAML: {error}", field="config") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{file} holds a single value", field="config", expected="a mapping")
    return {str(key): _sourced(value, source, text=False) for key, value in raw.items()}


def _environment_layer(environment: Mapping[str, str]) -> Layer:
    layer: Layer = {}
    for name in sorted(environment):
        if not name.startswith(ENV_PREFIX) or name in _NO_SETTINGS:
            continue
        path = name.removeprefix(ENV_PREFIX).lower().split("__")
        value: object = environment[name]
        if path == ["deployments"]:
            texts = environment[name].split(";")
            value = [parse_deployment(item) for item in texts if item.strip()]
        _place(layer, path, _sourced(value, f"environment {name}", text=True))
    return layer


def _flag_layer(flags: Mapping[str, object]) -> Layer:
    layer: Layer = {}
    for dotted, value in flags.items():
        if dotted == "deployments" and isinstance(value, (list, tuple)):
            value = [parse_deployment(str(item)) for item in value]
        text = not isinstance(value, (bool, int, float))
        _place(layer, dotted.split("."), _sourced(value, f"flag for {dotted}", text=text))
    return layer


def _sourced(value: object, source: str, *, text: bool, depth: int = 0) -> Raw:
    """`value` with its source at every leaf; mappings and lists stay open for merging.

    Raises:
        ConfigError: It is nested deeper than any setting, perhaps in itself: YAML has references.
    """
    if depth > DEPTH_MAX:
        raise ConfigError(
            f"{source} is nested deeper than {DEPTH_MAX} levels",
            field="config",
            expected="settings as they are in docs/settings.md",
        )

    def inner(item: object) -> Raw:
        return _sourced(item, source, text=text, depth=depth + 1)

    if isinstance(value, dict):
        return {str(key): inner(item) for key, item in value.items()}
    if isinstance(value, list):
        return _Sourced([inner(item) for item in value], source, text)
    return _Sourced(value, source, text)


def _place(layer: Layer, path: list[str], value: Raw) -> None:
    *parents, last = path
    for index, key in enumerate(parents):
        nest = layer.setdefault(key, {})
        if not isinstance(nest, dict):
            raise ConfigError(
                "is set both as one value and in parts", field=".".join(path[: index + 1])
            )
        layer = nest
    layer[last] = value


def _overlay(below: Layer, above: Layer) -> None:
    """Lay one layer over another: mappings merge, everything else is replaced."""
    for key, value in above.items():
        lower = below.get(key)
        if isinstance(value, dict) and isinstance(lower, dict):
            _overlay(lower, value)
        else:
            below[key] = value


# Checks


def _build_struct(struct: type[_Struct], raw: Layer, path: str, sources: dict[str, str]) -> _Struct:
    hints = fields_of(struct)
    for key, value in raw.items():
        if key not in hints:
            known = ", ".join(hints)
            raise ConfigError(
                f"unknown setting in {_source_of(value)}",
                field=_join(path, key),
                expected=f"one of {known}",
            )
    infos = {info.name: info for info in msgspec.structs.fields(struct)}
    values: dict[str, object] = {}
    for key, hint in hints.items():
        where = _join(path, key)
        if key in raw:
            values[key] = _build(hint, raw[key], where, sources)
        elif infos[key].required:
            raise ConfigError("is missing", field=where, expected=expected_of(hint))
        else:
            values[key] = infos[key].default
            _note_defaults(values[key], where, sources)
    return struct(**values)


def _build(hint: object, raw: Raw, path: str, sources: dict[str, str]) -> object:
    if is_struct(hint):
        if not isinstance(raw, dict):
            raise _wrong(raw, path, "a mapping")
        return _build_struct(hint, raw, path, sources)
    if isinstance(raw, dict):
        raise _wrong(raw, path, expected_of(hint))
    element = element_of(hint)
    if element is None:
        sources[path] = raw.source
        return _convert(hint, raw, path)
    if not isinstance(raw.value, list):
        raise _wrong(raw, path, "a list")
    sources[path] = raw.source
    items = []
    for index, item in enumerate(raw.value):
        items.append(_build(element, item, f"{path}[{index}]", sources))
    return tuple(items)


def _convert(hint: object, raw: _Sourced, path: str) -> object:
    try:
        value: object = msgspec.convert(raw.value, typing.cast("Any", hint), strict=not raw.text)
    except msgspec.ValidationError as error:
        raise _wrong(raw, path, expected_of(hint)) from error
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(raw, path, "a finite number")
    return value


def _check_names(config: Config) -> None:
    seen: set[str] = set()
    for index, deployment in enumerate(config.deployments):
        if deployment.name in seen:
            raise ConfigError(
                f"{deployment.name!r} is used twice",
                field=f"deployments[{index}].name",
                expected="a name of its own",
            )
        seen.add(deployment.name)


def _note_defaults(value: object, path: str, sources: dict[str, str]) -> None:
    if isinstance(value, msgspec.Struct):
        for key in value.__struct_fields__:
            _note_defaults(getattr(value, key), _join(path, key), sources)
    else:
        sources[path] = DEFAULT


def _unwrap(hint: object) -> tuple[Any, Meta | None]:
    if get_origin(hint) is Annotated:
        base, *annotations = get_args(hint)
        return base, next((item for item in annotations if isinstance(item, Meta)), None)
    return hint, None


def _source_of(raw: Raw) -> str:
    while isinstance(raw, dict) and raw:
        raw = next(iter(raw.values()))
    return raw.source if isinstance(raw, _Sourced) else "an empty mapping"


def _wrong(raw: Raw, path: str, expected: str) -> ConfigError:
    shown = "a mapping"
    if isinstance(raw, _Sourced):
        shown = "a list" if isinstance(raw.value, list) else repr(raw.value)
    return ConfigError(f"got {shown} from {_source_of(raw)}", field=path, expected=expected)


def _bad(text: str, path: str, expected: str) -> ConfigError:
    return ConfigError(f"cannot read {text!r}", field=path, expected=expected)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
