"""Keeps schemathesis from waiting: a pace above 0 fills objectives, and it draws ones of days.

SCHEMATHESIS_HOOKS=bench.fuzz.schemathesis_hooks schemathesis run http://…/openapi.json …
"""

from __future__ import annotations

import schemathesis

KNOWN = frozenset(
    {"authorization", "content-type", "festina-pace", "festina-tbt-ms", "festina-ttft-ms"}
)


@schemathesis.hook
def filter_case(_: object, case: schemathesis.Case) -> bool:
    """HTTP passes over headers that it does not know."""
    return all(name.lower() in KNOWN for name in case.headers or ())


@schemathesis.hook
def before_call(_: object, case: schemathesis.Case, __: dict[str, object]) -> None:
    """A valid pace becomes 0; what is invalid stays, for it must be refused."""
    if case.headers and _is_pace(case.headers.get("festina-pace")):
        case.headers["festina-pace"] = "0"
    wishes = case.body.get("festina") if isinstance(case.body, dict) else None
    if isinstance(wishes, dict) and _is_pace(wishes.get("pace")):
        wishes["pace"] = 0


def _is_pace(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    try:
        return 0 < float(value) <= 1
    except ValueError:
        return False
