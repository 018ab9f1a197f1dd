"""Which benches there are, and what becomes of one that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from festina import _core
from festina.errors import FestinaError

from .figures import Outcome, Series

Bench = Callable[[], Outcome]

PAGE_BYTES = 16 * 2**10
ROUTES = {
    "within": "within a GPU",
    "to_device": "from pinned memory",
    "to_host": "to pinned memory",
    "to_peer": "to another GPU",
}
"""Of `kv_copy.run`, for people."""

_FAILURES = (FestinaError, _core.CudaDriverError, RuntimeError, ImportError, OSError)


def run_all(benches: Mapping[str, Bench], told: Callable[[str], None]) -> tuple[Outcome, list[str]]:
    """Run benches one after the other; what fails is told, and the others go on.

    Args:
        benches: Name → bench.
        told: Gets a line before and after each.
    """
    found, problems = Outcome(), []
    for name, bench in benches.items():
        told(f"{name} …")
        try:
            outcome = bench()
        except _FAILURES as error:
            problems.append(f"{name}: {type(error).__name__}: {error}")
            told(f"{name}: not measured: {error}")
            continue
        found.values |= outcome.values
        found.series += outcome.series
        found.unavailable += outcome.unavailable
        told(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in outcome.values.items()))
    return found, problems


def kv_copy_outcome(found: dict[str, Any]) -> Outcome:
    """The copies of KV blocks (`kv_copy.run`) as figures, and a curve for each way and route."""
    values = {
        f"kv_{route}_ceiling_gb_per_s": swept["ceiling_gb_per_s"]
        for route, swept in found["routes"].items()
    }
    within = _page(found["routes"]["within"])["ways"]
    to_device = _page(found["routes"]["to_device"])["ways"]
    ceiling_gb_per_s = values.pop("kv_within_ceiling_gb_per_s")
    kernel_gb_per_s = within["kernel"]["gb_per_s"]  # the way that festina goes there
    values |= {
        "kv_same_gpu_ceiling_gb_per_s": ceiling_gb_per_s,
        "kv_same_gpu_16k_ceiling_share": kernel_gb_per_s / ceiling_gb_per_s,
        "kv_same_gpu_16k_over_async": kernel_gb_per_s / within["cuMemcpyAsync_each"]["gb_per_s"],
        "kv_pinned_h2d_16k_gb_per_s": max(
            to_device[way]["gb_per_s"] for way in ("kernel", "cuMemcpyBatchAsync")
        ),
    }
    series = []
    for route, swept in found["routes"].items():
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in swept["pages"]:
            for way, told in row["ways"].items():
                lines.setdefault(way, []).append((float(row["page_bytes"]), told["gb_per_s"]))
        series.append(Series(f"KV copy {ROUTES.get(route, route)}", "page, bytes", "GB/s", lines))
    unavailable = [
        f"KV copy {ROUTES.get(route, route)}: {reason}"
        for route, reason in found.get("unavailable", {}).items()
    ]
    return Outcome(values, series, unavailable)


def _page(swept: dict[str, Any]) -> dict[str, Any]:
    """The row of the pages that bars speak of."""
    (row,) = (row for row in swept["pages"] if row["page_bytes"] == PAGE_BYTES)
    return dict(row)
