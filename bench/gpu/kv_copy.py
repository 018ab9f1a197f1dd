"""KV copies of a GPU: bandwidth against page size, beside per-page copies and the device's ceiling.

Pages go from anywhere to anywhere, so that nothing can be merged, by all ways in turn: festina's
kernel, festina's batch for the copy engines (cuMemcpyBatchAsync), and one cuMemcpyAsync a page. The
ceiling is one copy of all bytes at once, by the better of cuMemcpyAsync and the kernel. Bandwidths
count each byte once.

Run: python bench/gpu/kv_copy.py [ORDINAL] > kv_copy.json
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from festina import _core
from festina.engine.kv_crossover import KERNEL_ONLY, calibrate

PAGES_BYTES = tuple(2**exponent for exponent in range(12, 21))
ROUNDS = 9
TOTAL_BYTES = 2**28
PAGES_MAX = 16384
"""Per-page copies take microseconds each: small pages are timed over fewer bytes."""

_ENGINE_ONLY = 0


@dataclass(frozen=True, slots=True)
class Route:
    """From where to where, on which stream."""

    copier: _core.KvCopier
    src: _core.CudaMemory
    dst: _core.CudaMemory
    stream: int
    blocks_max: int

    def copy(self, runs: NDArray[np.uint64], blocks_max: int, engine_min: int) -> None:
        self.copier.copy(*self._ends(), runs, self.stream, blocks_max, engine_min)

    def copy_each(self, runs: NDArray[np.uint64]) -> None:
        self.copier.copy_each(*self._ends(), runs, self.stream)

    def _ends(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.src.address, self.src.size), (self.dst.address, self.dst.size)

    def seconds(self, copy: Callable[[], None]) -> tuple[float, float]:
        """Until the call returns, and until the copy is done."""
        start = time.perf_counter()
        copy()
        submitted = time.perf_counter()
        self.copier.wait(self.stream)
        return submitted - start, time.perf_counter() - start


def pages(page_bytes: int) -> NDArray[np.uint64]:
    """Runs of one page each, from anywhere to anywhere."""
    count = min(TOTAL_BYTES // page_bytes, PAGES_MAX)
    rng = np.random.default_rng(0)
    places = [rng.permutation(TOTAL_BYTES // page_bytes)[:count] * page_bytes for _ in range(2)]
    return np.stack((*places, np.full(count, page_bytes)), axis=1).astype(np.uint64)


def in_turn(
    route: Route, ways: dict[str, Callable[[], None]], copied_bytes: int
) -> dict[str, dict[str, float]]:
    """Medians over rounds in which every way has its turn, after one to warm up."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for round_ in range(ROUNDS + 1):
        for name, copy in ways.items():
            both = route.seconds(copy)
            if round_:
                taken[name].append(both)
    medians = {name: np.median(times, axis=0) for name, times in taken.items()}
    return {
        name: {"gb_per_s": copied_bytes / done_s / 1e9, "submit_us": submit_s * 1e6}
        for name, (submit_s, done_s) in medians.items()
    }


def sweep(route: Route) -> dict[str, object]:
    """All page sizes of one route."""
    whole = np.array([(0, 0, TOTAL_BYTES)], np.uint64)
    ceiling = in_turn(
        route,
        {
            "cuMemcpyAsync": lambda: route.copy_each(whole),
            "kernel": lambda: route.copy(whole, route.blocks_max, KERNEL_ONLY),
        },
        TOTAL_BYTES,
    )
    ceiling_gb_per_s = max(way["gb_per_s"] for way in ceiling.values())
    rows = []
    for page_bytes in PAGES_BYTES:
        runs = pages(page_bytes)
        ways: dict[str, Callable[[], None]] = {
            "kernel": lambda runs=runs: route.copy(runs, route.blocks_max, KERNEL_ONLY),
            "kernel_16_blocks": lambda runs=runs: route.copy(runs, 16, KERNEL_ONLY),
            "cuMemcpyBatchAsync": lambda runs=runs: route.copy(runs, 1, _ENGINE_ONLY),
            "cuMemcpyAsync_each": lambda runs=runs: route.copy_each(runs),
        }
        measured = in_turn(route, ways, len(runs) * page_bytes)
        best = max(measured["kernel"]["gb_per_s"], measured["cuMemcpyBatchAsync"]["gb_per_s"])
        rows.append(
            {
                "page_bytes": page_bytes,
                "pages": len(runs),
                "ways": measured,
                "best_over_ceiling": best / ceiling_gb_per_s,
                "best_over_each": best / measured["cuMemcpyAsync_each"]["gb_per_s"],
            }
        )
    return {"ceiling": ceiling, "ceiling_gb_per_s": ceiling_gb_per_s, "pages": rows}


class Unavailable(Exception):  # noqa: N818 - no failure: the machine has no such route
    """A route that this machine has not, and why."""


def peer_memory(driver: _core.CudaDriver, device: int, copier: _core.KvCopier) -> _core.CudaMemory:
    """Memory of the next GPU, which `copier` reaches.

    Raises:
        Unavailable: There is none, or no way from here to there.
        CudaDriverError: The driver failed.
    """
    peer = (device + 1) % driver.device_count()
    if peer == device:
        raise Unavailable("this machine has one GPU")
    try:
        copier.enable_peer(peer)
    except _core.CudaDriverError as error:
        if error.fault != "no_resources":
            raise
        raise Unavailable(str(error)) from error
    return _core.KvCopier(driver, peer).allocate(TOTAL_BYTES)


def run(device: int) -> dict[str, object]:
    """Measure; JSON-ready. Routes that the machine has not are in "unavailable", with the reason.

    Args:
        device: CUDA ordinal.

    Raises:
        CudaDriverError: No driver of CUDA 13.0 or later, or it refused.
    """
    driver = _core.CudaDriver()
    copier = _core.KvCopier(driver, device)
    whole = _core.GreenContexts(driver, device, [])
    (stream,) = whole.streams(0, 0)
    blocks_max = 2 * driver.sm_count(device)
    here, other = copier.allocate(TOTAL_BYTES), copier.allocate(TOTAL_BYTES)
    host = copier.allocate_pinned(TOTAL_BYTES)
    ends = {"within": (here, other), "to_device": (host, here), "to_host": (here, host)}
    unavailable: dict[str, str] = {}
    try:
        ends["to_peer"] = (here, peer_memory(driver, device, copier))
    except Unavailable as reason:
        unavailable["to_peer"] = str(reason)
    routes = {
        name: Route(copier, src, dst, stream, blocks_max) for name, (src, dst) in ends.items()
    }
    crossover = calibrate(driver, device, copier, stream, blocks_max)
    return {
        "device": driver.device_uuid(device),
        "driver": driver.version,
        "blocks_max": blocks_max,
        "crossover_bytes": {
            "to_device": crossover.to_device_bytes,
            "to_host": crossover.to_host_bytes,
        },
        "routes": {name: sweep(route) for name, route in routes.items()},
        "unavailable": unavailable,
    }


if __name__ == "__main__":
    try:
        figures = run(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    except _core.CudaDriverError as error:
        sys.exit(f"needs a GPU: {error}")
    json.dump(figures, sys.stdout, indent=2)
