"""KV copies on a real GPU: bit-exact by every way, shared between processes, and typed refusals."""

import os
import socket

import msgspec
import numpy as np
import pytest
from kv_peer import REAL, run_peer

from festina import _core
from festina.engine.kv_copy import BlockPool, KvMemory, copy_blocks, export_blocks, import_blocks
from festina.engine.kv_copy_cuda import CudaKvCopy
from festina.engine.kv_crossover import KERNEL_ONLY, Crossover
from festina.engine.kv_layout import KvLayout

LAYOUT = KvLayout.planar(6, 64, 4096)
CROSSOVER = Crossover("", 0, 16, 32768, 32768, (), ())


@pytest.fixture(scope="module")
def driver():
    if not _core.build_info()["cuda"]:
        pytest.skip("built without CUDA")
    try:
        driver = _core.CudaDriver()
        if driver.device_count() == 0:
            pytest.skip("no NVIDIA GPU")
    except _core.CudaDriverError as error:
        pytest.skip(str(error))
    return driver


@pytest.fixture(scope="module")
def ladder(driver):
    return _core.GreenContexts(driver, 0, [driver.sm_count(0) // 4])


@pytest.fixture(params=[(0, 0), (1, 0)], ids=["whole device", "own partition"])
def copier(request, driver, ladder):
    stream = ladder.streams(*request.param)[0]
    copier = CudaKvCopy(driver, 0, stream, blocks_max=16, crossover=CROSSOVER)
    yield copier
    copier.wait()


def pool_on(copier: CudaKvCopy, seed: int) -> tuple[BlockPool, np.ndarray]:
    """A pool of random content on the device, and its content as (blocks, bytes)."""
    pool = BlockPool(copier.memory.allocate(LAYOUT.size_bytes), LAYOUT)
    content = np.random.default_rng(seed).integers(0, 256, (64, LAYOUT.block_bytes), np.uint8)
    import_blocks(copier, pool, np.arange(64, dtype=np.int32), content)
    return pool, content


def all_of(copier: CudaKvCopy, pool: BlockPool) -> np.ndarray:
    return export_blocks(copier, pool, np.arange(64, dtype=np.int32))


def test_blocks_survive_the_way_to_the_device_and_back(copier):
    pool, content = pool_on(copier, 1)
    assert np.array_equal(all_of(copier, pool), content)


def test_blocks_go_within_the_device(copier):
    (src, content), (dst, expected) = pool_on(copier, 1), pool_on(copier, 2)
    rng = np.random.default_rng(3)
    blocks, targets = (rng.permutation(64)[:40].astype(np.int32) for _ in range(2))
    copy_blocks(copier, src, blocks, dst, targets)
    expected[targets] = content[blocks]
    assert np.array_equal(all_of(copier, dst), expected)


@pytest.mark.parametrize("engine_min", [0, 2048, KERNEL_ONLY])
@pytest.mark.parametrize("way", ["to device", "to host", "within"])
def test_runs_of_any_size_arrive_bit_for_bit_by_kernel_and_engine(driver, ladder, way, engine_min):
    native = _core.KvCopier(driver, 0)
    (stream,) = ladder.streams(1, 0)
    rng = np.random.default_rng(5)
    sizes = 16 * rng.integers(1, 600, 2500)
    starts = np.cumsum(sizes) - sizes
    order = rng.permutation(len(sizes))
    targets = np.empty_like(starts)
    targets[order] = np.cumsum(sizes[order]) - sizes[order]
    runs = np.stack((starts, targets, sizes), axis=1).astype(np.uint64)
    total = int(sizes.sum())
    host, back = native.allocate_pinned(total), native.allocate_pinned(total)
    one, other = native.allocate(total), native.allocate(total)
    whole = np.array([(0, 0, total)], np.uint64)

    def copy(src, dst, table, least):
        ends = (src.address, total), (dst.address, total)
        native.copy(*ends, table, stream, 16, least)

    content = rng.integers(0, 256, total, dtype=np.uint8)
    np.frombuffer(host, np.uint8)[:] = content
    if way == "to device":
        copy(host, other, runs, engine_min)
    else:
        copy(host, one, whole, 0)
        copy(one, other if way == "within" else back, runs, engine_min)
    if way != "to host":
        copy(other, back, whole, 0)
    native.wait(stream)
    expected = np.empty_like(content)
    for start, target, size in runs.astype(int):
        expected[target : target + size] = content[start : start + size]
    assert np.array_equal(np.frombuffer(back, np.uint8), expected)


def test_host_memory_that_is_pinned_later_is_reached(copier):
    (pool, content), array = pool_on(copier, 1), np.zeros(LAYOUT.size_bytes, np.uint8)
    blocks = np.arange(64, dtype=np.int32)
    pinned = BlockPool(copier.memory.pin(array), KvLayout.packed(6, 64, 4096))
    copy_blocks(copier, pool, blocks, pinned, blocks)
    copier.wait()
    assert copier.done()
    assert np.array_equal(array.reshape(64, -1), content)


def test_the_crossover_is_measured_and_kept(driver, ladder, tmp_path):
    (stream,) = ladder.streams(0, 0)
    opened = CudaKvCopy.open(driver, 0, stream, tmp_path)
    (kept,) = tmp_path.iterdir()
    crossover = msgspec.json.decode(kept.read_bytes(), type=Crossover)
    assert crossover.device == driver.device_uuid(0)
    assert all(point.kernel_gb_per_s > 0 for point in crossover.to_device + crossover.to_host)
    pool, content = pool_on(opened, 1)
    assert np.array_equal(all_of(opened, pool), content)


@pytest.mark.parametrize("way", ["handle", "fd"])
def test_another_process_maps_the_pool_and_copies_in_it(copier, way):
    size = 1 << 21
    make = copier.memory.allocate if way == "handle" else copier.memory.exportable
    memory = make(size)
    content = np.random.default_rng(7).integers(0, 256, memory.size_bytes, dtype=np.uint8)
    whole = np.array([(0, 0, memory.size_bytes)], np.uint64)
    copier.from_host(content, memory, whole)

    def send(channel):
        if way == "handle":
            channel.send(msgspec.msgpack.encode(copier.memory.share(memory)))
            return
        fd = copier.memory.export_fd(memory)
        socket.send_fds(channel, [str(memory.size_bytes).encode()], [fd])
        os.close(fd)

    assert run_peer(REAL, way, send) == b"done"
    half = memory.size_bytes // 2
    seen = copier.to_host(memory, whole, memory.size_bytes)
    assert np.array_equal(seen[half:], content[:half])


def test_another_device_is_reached_where_there_is_one(driver, copier):
    if driver.device_count() < 2:
        pytest.skip("one GPU")
    there = _core.KvCopier(driver, 1).allocate(LAYOUT.size_bytes)
    pool, content = pool_on(copier, 1)
    far = KvMemory.of_device(there.address, there.size, 1, there)
    blocks = np.arange(64, dtype=np.int32)
    copy_blocks(copier, pool, blocks, BlockPool(far, LAYOUT), blocks)
    back, _ = pool_on(copier, 2)
    copy_blocks(copier, BlockPool(far, LAYOUT), blocks, back, blocks)
    assert np.array_equal(all_of(copier, back), content)
