"""`festina config`: the settings in force, and where each one came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Annotated

import msgspec
import typer

from festina.cli.options import ConfigFile, Deploy, EndpointOption, Gpus, Json, SetFlags, settings
from festina.config_docs import settings_table
from festina.config_load import DEFAULT


def command(
    config: ConfigFile = None,
    sets: SetFlags = None,
    gpus: Gpus = None,
    deploy: Deploy = None,
    endpoint: EndpointOption = None,
    json: Json = False,
    table: Annotated[bool, typer.Option("--table", help="Describe all settings.")] = False,
) -> None:
    """Print the settings in force as YAML (valid as a settings file), each with its source."""
    if table:
        print(settings_table(), end="")
        return
    found = settings(config, sets, gpus=gpus, deploy=deploy, endpoint=endpoint)
    tree = plain(found.config)
    if json:
        print(
            msgspec.json.format(
                msgspec.json.encode({"settings": tree, "sources": found.sources})
            ).decode()
        )
        return
    for line in _yaml_lines(tree, found.sources):
        print(line)


def plain(struct: msgspec.Struct) -> dict[str, object]:
    """A struct as nested mappings, wire-compact structs included."""
    return {key: _plain(getattr(struct, key)) for key in struct.__struct_fields__}


def _plain(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return plain(value)
    if isinstance(value, IntEnum):
        return value.name.lower()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _yaml_lines(
    tree: Mapping[str, object], sources: Mapping[str, str], path: str = "", indent: str = ""
) -> Iterator[str]:
    for key, value in tree.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _yaml_lines(value, sources, where, indent + "  ")
        elif isinstance(value, list) and value:
            yield f"{indent}{key}:" + _note(sources.get(where, DEFAULT))
            for index, item in enumerate(value):
                first, *rest = _yaml_lines(item, sources, f"{where}[{index}]", "")
                yield f"{indent}  - {first}"
                yield from (f"{indent}    {line}" for line in rest)
        else:
            scalar = msgspec.json.encode(value).decode()
            yield f"{indent}{key}: {scalar}" + _note(sources.get(where, DEFAULT))


def _note(source: str) -> str:
    return "" if source == DEFAULT else f"  # {source}"
