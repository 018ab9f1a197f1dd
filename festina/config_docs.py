"""The table of all settings, derived from the tree: types, bounds, defaults and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from festina.config import Config
from festina.config_load import (
    ENV_PREFIX,
    element_of,
    expected_of,
    fields_of,
    is_struct,
)

_ATTRIBUTE = re.compile(r"^    (\w+): (.+(?:\n {8,}.+)*)", re.MULTILINE)

_HEAD = """\
# Settings

A flag wins over the environment, the environment over the file, the file over the default.

- File: YAML, given by `--config FILE` or `FESTINA_CONFIG`; dots below are nesting.
- Environment: the name in the last column.
- Flags: `--set scheduler.margin=0.1` sets any of them; the common ones have flags of their own.
- Deployments: a list in the file, `--deploy NAME=WEIGHTS,ttft_ms=…,pace=…` (repeatable) as a flag,
  the same texts separated by `;` in `FESTINA_DEPLOYMENTS`.

`festina config` prints the settings in force and where each one came from. This page is written by
`festina config --table`.

| setting | expected | default | meaning | environment |
| --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    Attributes:
        path: Dotted path; `[]` stands for the index in a list.
        expected: What values are allowed.
        default: Default as YAML would write it, or "required".
        meaning: From the docstring of its section.
        variable: Environment variable, or "" inside a list.
    """

    path: str
    expected: str
    default: str
    meaning: str
    variable: str


def settings_table() -> str:
    """All settings as a Markdown page (docs/settings.md)."""
    rows = [
        "| " + " | ".join(_cells(setting)) + " |"
        for setting in sorted(all_settings(), key=lambda setting: "." in setting.path)
    ]
    return _HEAD + "\n".join(rows) + "\n"


def all_settings(struct: type[msgspec.Struct] = Config, prefix: str = "") -> Iterator[Setting]:
    """Every leaf of the tree, sections in order."""
    meanings = _meanings(struct)
    infos = {info.name: info for info in msgspec.structs.fields(struct)}
    for key, hint in fields_of(struct).items():
        path = prefix + key
        element = element_of(hint)
        if is_struct(hint):
            yield from _with_defaults(hint, path, infos[key])
        elif element is not None:
            yield from all_settings(element, f"{path}[].")
        else:
            yield Setting(
                path, expected_of(hint), _default(infos[key]), meanings[key], _variable(path)
            )


def _with_defaults(
    hint: type[msgspec.Struct], path: str, info: msgspec.structs.FieldInfo
) -> Iterator[Setting]:
    """Settings of a section; the defaults are those of the section's own default value."""
    for setting in all_settings(hint, f"{path}."):
        key = setting.path.removeprefix(f"{path}.")
        if "." in key:
            yield setting
        else:
            default = _yaml(getattr(info.default, key))
            yield Setting(
                setting.path, setting.expected, default, setting.meaning, setting.variable
            )


def _meanings(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {
        key: " ".join(text.split())
        for key, text in _ATTRIBUTE.findall(inspect.getdoc(struct) or "")
    }


def _default(info: msgspec.structs.FieldInfo) -> str:
    return "required" if info.required else _yaml(info.default)


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'


def _variable(path: str) -> str:
    return "" if "[]" in path else ENV_PREFIX + path.upper().replace(".", "__")


def _cells(setting: Setting) -> tuple[str, ...]:
    return (
        f"`{setting.path}`",
        setting.expected.replace("|", "\\|"),
        f"`{setting.default}`" if setting.default != "required" else "required",
        setting.meaning.replace("|", "\\|"),
        f"`{setting.variable}`" if setting.variable else "",
    )
