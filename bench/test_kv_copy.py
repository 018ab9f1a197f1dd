"""KV copies on the host: 16 KiB blocks from anywhere to anywhere, beside memcpy and numpy.

All ways take turns in one run, so that the machine's mood is the same for each; what is reported is
the median over rounds of each way's share of one big memcpy's bandwidth in the same round. Pools of
256 MiB lie in memory, those of 4 MiB in caches.

Run: .venv/bin/pytest bench/test_kv_copy.py -s
"""

import time
from collections.abc import Callable

import numpy as np
import pytest

from festina.engine.kv_copy import BlockPool, HostKvCopy, KvMemory, copy_blocks
from festina.engine.kv_layout import KvLayout

BLOCK_BYTES = 16 * 1024
ROUNDS = 15


class Pools:
    """Two pools of one piece per block, and an order in which blocks go from one to the other."""

    def __init__(self, pool_bytes: int) -> None:
        blocks = pool_bytes // BLOCK_BYTES
        rng = np.random.default_rng(0)
        layout = KvLayout.planar(1, blocks, BLOCK_BYTES)
        self.src = rng.integers(0, 256, pool_bytes, dtype=np.uint8)
        self.dst = np.zeros(pool_bytes, np.uint8)
        self.src_blocks = rng.permutation(blocks).astype(np.int32)
        self.dst_blocks = rng.permutation(blocks).astype(np.int32)
        self._copier = HostKvCopy()
        self._pools = [BlockPool(KvMemory.of_array(one), layout) for one in (self.src, self.dst)]

    def memcpy(self) -> None:
        np.copyto(self.dst, self.src)

    def festina(self) -> None:
        src, dst = self._pools
        copy_blocks(self._copier, src, self.src_blocks, dst, self.dst_blocks)

    def numpy_each(self) -> None:
        src, dst = (one.reshape(-1, BLOCK_BYTES) for one in (self.src, self.dst))
        for source, target in zip(self.src_blocks, self.dst_blocks, strict=True):
            dst[target] = src[source]

    def numpy_index(self) -> None:
        src, dst = (one.reshape(-1, BLOCK_BYTES) for one in (self.src, self.dst))
        dst[self.dst_blocks] = src[self.src_blocks]


def seconds(copy: Callable[[], None]) -> float:
    start = time.perf_counter()
    copy()
    return time.perf_counter() - start


@pytest.mark.parametrize("pool_mib", [4, 256])
def test_blocks_of_16_kib(benchmark, pool_mib: int):
    pools = Pools(pool_mib * 2**20)
    ways = (pools.festina, pools.numpy_each, pools.numpy_index)
    shares: dict[str, list[float]] = {way.__name__: [] for way in ways}
    memcpy_gb_per_s = []
    repeats = 256 // pool_mib

    def take_turns() -> None:
        for _ in range(repeats):
            memcpy_s = seconds(pools.memcpy)
            memcpy_gb_per_s.append(pools.src.nbytes / memcpy_s / 1e9)
            for way in ways:
                shares[way.__name__].append(memcpy_s / seconds(way))

    for way in (pools.memcpy, *ways):
        way()
    benchmark.group = f"KV copy, {pool_mib} MiB of 16 KiB blocks, all ways in turn"
    benchmark.pedantic(take_turns, rounds=ROUNDS)
    benchmark.extra_info["memcpy_gb_per_s"] = float(np.median(memcpy_gb_per_s))
    for name, values in shares.items():
        benchmark.extra_info[f"{name}_over_memcpy"] = float(np.median(values))
    print(benchmark.group, benchmark.extra_info)
