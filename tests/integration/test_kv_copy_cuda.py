"""KV copies of a GPU on a pretended driver: contents, ways, and every refusal by its name."""

import ctypes

import numpy as np
import pytest
from fake_cuda import IMAGE, FakeCuda
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from festina import _core
from festina.engine.kv_copy import BlockPool, KvMemory, copy_blocks, export_blocks, import_blocks
from festina.engine.kv_copy_cuda import CudaKvCopy
from festina.engine.kv_crossover import SIZES_BYTES, Crossover, kept_or_calibrated
from festina.engine.kv_layout import KvLayout
from festina.errors import (
    ConfigError,
    DeviceError,
    DeviceLostError,
    DeviceUnsupportedError,
    EngineError,
    StreamCapturedError,
)

STREAM = 64
BLOCKS_MAX = 4
CROSSOVER = Crossover("GPU", 13000, BLOCKS_MAX, 1024, 4096, (), ())
POOL_BYTES = 1 << 16


@pytest.fixture
def fake(tmp_path):
    return lambda *defines: FakeCuda(tmp_path, *defines)


def copier_of(pretended: FakeCuda, ordinal: int = 0) -> CudaKvCopy:
    return CudaKvCopy(
        pretended.driver,
        ordinal,
        STREAM,
        blocks_max=BLOCKS_MAX,
        crossover=CROSSOVER,
        copier=_core.KvCopier(pretended.driver, ordinal, IMAGE),
    )


def seen(memory: KvMemory) -> np.ndarray:
    """Contents, of the device too: the pretended one's memory is the host's."""
    buffer = (ctypes.c_uint8 * memory.size_bytes).from_address(memory.address)
    return np.frombuffer(buffer, np.uint8)


def filled(memory: KvMemory, seed: int) -> KvMemory:
    seen(memory)[:] = np.random.default_rng(seed).integers(0, 256, memory.size_bytes, np.uint8)
    return memory


def runs_of(size: int, count: int, gap: int = 16) -> np.ndarray:
    """Runs that cannot be merged: tightly packed at the source, apart at the destination."""
    return np.array([(i * size, i * (size + gap), size) for i in range(count)], np.uint64)


def ways(pretended: FakeCuda) -> list[str]:
    return [call for call, _, _ in pretended.calls() if call in ("launch", "batch")]


def test_blocks_go_within_a_device_by_the_kernel_alone(fake):
    pretended = fake()
    copier = copier_of(pretended)
    layout = KvLayout.planar(6, 32, 512)
    src, dst = (
        BlockPool(filled(copier.memory.allocate(layout.size_bytes), seed), layout)
        for seed in (1, 2)
    )
    blocks, targets = np.array([3, 9, 1], np.int32), np.array([30, 2, 5], np.int32)
    expected = seen(dst.memory).reshape(6, 32, 512).copy()
    expected[:, targets] = seen(src.memory).reshape(6, 32, 512)[:, blocks]
    copy_blocks(copier, src, blocks, dst, targets)
    copier.wait()
    assert copier.done()
    assert np.array_equal(seen(dst.memory).reshape(6, 32, 512), expected)
    assert pretended.calls() == [("launch", 3, 18), ("lanes", 32, 32)]


def test_a_large_table_within_a_device_goes_a_launch_at_a_time(fake):
    pretended = fake()
    native = _core.KvCopier(pretended.driver, 0, IMAGE)
    count = 2500
    one, other = native.allocate(count * 16), native.allocate(count * 16)
    src, dst = (KvMemory.of_device(each.address, each.size, 0, each) for each in (one, other))
    targets = np.random.default_rng(1).permutation(count)
    expected = np.empty((count, 16), np.uint8)
    expected[targets] = seen(filled(src, 3)).reshape(count, 16)
    whole = (src.address, src.size_bytes), (dst.address, dst.size_bytes)
    runs = np.stack((np.arange(count), targets, np.ones(count)), axis=1).astype(np.uint64) * 16
    joined, _ = native.copy(*whole, runs.astype(np.uint64), STREAM, BLOCKS_MAX, 2**63)
    assert np.array_equal(seen(dst).reshape(count, 16), expected)
    launches = [runs for call, _, runs in pretended.calls() if call == "launch"]
    assert len(launches) == 3
    assert sum(launches) == joined
    straight = np.stack((np.arange(count),) * 2 + (np.ones(count),), axis=1) * 16
    assert native.copy(*whole, straight.astype(np.uint64), STREAM, BLOCKS_MAX, 2**63) == (3, 0)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=200),
    kept=st.integers(0, 2**32 - 1),
    engine_min=st.sampled_from([0, 256, 2**63]),
)
def test_any_table_arrives_bit_for_bit_whichever_way_its_runs_go(shared, cuts, kept, engine_min):
    copier, src, dst = shared
    rng = np.random.default_rng(kept)
    starts = np.cumsum([0, *cuts])[:-1] * 16
    sizes = np.array(cuts) * 16
    order = rng.permutation(len(cuts))
    targets = np.empty_like(starts)
    targets[order] = np.cumsum([0, *sizes[order]])[:-1]
    runs = np.stack((starts, targets, sizes), axis=1)[rng.random(len(cuts)) < 0.8]
    rng.shuffle(runs)
    filled(src, kept)
    expected = seen(filled(dst, kept + 1)).copy()
    for start, target, size in runs:
        expected[target : target + size] = seen(src)[start : start + size]
    copier.copy(
        (src.address, src.size_bytes),
        (dst.address, dst.size_bytes),
        runs.astype(np.uint64),
        STREAM,
        BLOCKS_MAX,
        engine_min,
    )
    assert np.array_equal(seen(dst), expected)


@pytest.fixture
def shared(fake):
    pretended = fake()
    copier = _core.KvCopier(pretended.driver, 0, IMAGE)
    memories = [copier.allocate(200 * 40 * 16) for _ in range(2)]
    src, dst = (KvMemory.of_device(one.address, one.size, 0, one) for one in memories)
    return copier, src, dst


def test_small_runs_go_by_kernel_and_large_ones_by_engine_to_and_from_the_host(fake):
    pretended = fake()
    copier = copier_of(pretended)
    device = filled(copier.memory.allocate(POOL_BYTES), 1)
    host = filled(copier.memory.pinned(POOL_BYTES), 2)
    mixed = np.concatenate((runs_of(512, 4), [(8192, 8192, 2048)])).astype(np.uint64)
    copier.copy(host, device, mixed)
    assert [(call, b) for call, _, b in pretended.calls() if call != "lanes"] == [
        ("launch", 4),
        ("batch", 1),
    ]
    assert np.array_equal(seen(device)[8192:10240], host.array()[8192:10240])
    copier.copy(device, host, runs_of(2048, 3))
    copier.copy(device, host, runs_of(4096, 3))
    assert ways(pretended) == ["launch", "batch", "launch", "batch"]


def test_runs_that_continue_each_other_are_one_run_of_their_joint_size(fake):
    pretended = fake()
    copier = copier_of(pretended)
    host, device = copier.memory.pinned(POOL_BYTES), copier.memory.allocate(POOL_BYTES)
    copier.copy(host, device, runs_of(256, 8, gap=0)[::-1].copy())
    assert pretended.calls() == [("batch", 0, 1)]


def test_a_launch_takes_a_table_at_a_time_and_no_more_blocks_than_allowed(fake):
    pretended = fake()
    copier = copier_of(pretended)
    size = 1100 * 4112
    src, dst = (filled(copier.memory.allocate(size), seed) for seed in (1, 2))
    runs = runs_of(4096, 1100)
    copier.copy(src, dst, runs)
    launches = [call for call in pretended.calls() if call[0] == "launch"]
    assert launches == [("launch", BLOCKS_MAX, 1024), ("launch", BLOCKS_MAX, 76)]
    moved = seen(dst).reshape(1100, 4112)[:, :4096]
    assert np.array_equal(moved, seen(src)[: 1100 * 4096].reshape(1100, 4096))


def test_one_long_run_is_shared_out_over_blocks(fake):
    pretended = fake()
    copier = copier_of(pretended)
    src, dst = (filled(copier.memory.allocate(5 << 16), seed) for seed in (1, 2))
    copier.copy(src, dst, np.array([(16, 32, (5 << 16) - 48)], np.uint64))
    assert pretended.calls() == [("launch", BLOCKS_MAX, 5), ("lanes", 256, 32)]
    assert np.array_equal(seen(dst)[32:-16], seen(src)[16:-32])


def test_blocks_are_exported_and_imported_by_way_of_pinned_memory(fake):
    pretended = fake()
    copier = copier_of(pretended)
    layout = KvLayout.planar(4, 8, 256)
    pool = BlockPool(filled(copier.memory.allocate(layout.size_bytes), 1), layout)
    before = seen(pool.memory).reshape(4, 8, 256).copy()
    data = export_blocks(copier, pool, np.array([5, 2], np.int32))
    assert np.array_equal(data.reshape(2, 4, 256), before[:, [5, 2]].swapaxes(0, 1))
    import_blocks(copier, pool, np.array([0, 7], np.int32), data)
    after = seen(pool.memory).reshape(4, 8, 256)
    assert np.array_equal(after[:, [0, 7]], before[:, [5, 2]])
    assert np.array_equal(after[:, 1:7], before[:, 1:7])
    assert export_blocks(copier, pool, np.array([], np.int32)).shape == (0, 1024)


def test_another_device_is_reached_by_copy_engines_once_the_way_is_open(fake):
    pretended = fake()
    here, there = copier_of(pretended, 0), copier_of(pretended, 1)
    src, dst = filled(here.memory.allocate(4096), 1), there.memory.allocate(4096)
    for _ in range(2):
        here.copy(src, dst, runs_of(256, 3))
    assert pretended.calls() == [("peer", 0, 0), ("batch", 0, 3), ("batch", 0, 3)]
    assert np.array_equal(seen(dst)[:256], seen(src)[:256])


def test_a_device_that_cannot_be_reached_is_refused(fake):
    pretended = fake("FAKE_PEER_ACCESS=0")
    here, there = copier_of(pretended, 0), copier_of(pretended, 1)
    src, dst = here.memory.allocate(4096), there.memory.allocate(4096)
    with pytest.raises(DeviceError, match="device 0 cannot reach the memory of device 1"):
        here.copy(src, dst, runs_of(256, 3))


def test_pageable_memory_and_copies_past_the_device_are_refused(fake):
    pretended = fake()
    copier, other = copier_of(pretended), copier_of(pretended, 1)
    device, pinned = copier.memory.allocate(4096), copier.memory.pinned(4096)
    pageable = KvMemory.of_array(np.zeros(4096, np.uint8))
    for src, dst in ((pageable, device), (device, pageable), (pinned, pinned)):
        with pytest.raises(EngineError, match=r"expected device 0 on one side"):
            copier.copy(src, dst, runs_of(256, 1))
    with pytest.raises(EngineError, match=r"expected device 1 on one side"):
        other.copy(device, pinned, runs_of(256, 1))
    assert pretended.calls() == []


def test_a_bad_run_is_named_and_nothing_is_started(fake):
    pretended = fake()
    copier = copier_of(pretended)
    src, dst = copier.memory.allocate(4096), copier.memory.allocate(4096)
    with pytest.raises(IndexError, match="descriptor 1"):
        copier.copy(src, dst, np.array([(0, 0, 16), (0, 4096, 16)], np.uint64))
    assert pretended.calls() == []


@pytest.mark.parametrize("stream", [0, 1])
def test_the_legacy_default_stream_is_refused(fake, stream):
    pretended = fake()
    copier = _core.KvCopier(pretended.driver, 0, IMAGE)
    memory = copier.allocate(4096)
    region = (memory.address, memory.size)
    with pytest.raises(ValueError, match="legacy default"):
        copier.copy(region, region, runs_of(16, 1), stream, 1, 0)
    with pytest.raises(ValueError, match="legacy default"):
        copier.copy_each(region, region, runs_of(16, 1), stream)


def test_no_blocks_and_crooked_addresses_are_refused(fake):
    copier = _core.KvCopier(fake().driver, 0, IMAGE)
    memory = copier.allocate(4096)
    region = (memory.address, 2048)
    with pytest.raises(ValueError, match="blocks_max"):
        copier.copy(region, region, runs_of(16, 1), STREAM, 0, 0)
    with pytest.raises(ValueError, match="multiple of 16"):
        copier.copy((memory.address + 8, 2048), region, runs_of(16, 1), STREAM, 1, 0)


@pytest.mark.parametrize("status", [1, 2])
def test_engines_are_refused_under_capture_before_anything_starts(fake, status):
    pretended = fake()
    copier = copier_of(pretended)
    host, device = copier.memory.pinned(POOL_BYTES), copier.memory.allocate(POOL_BYTES)
    pretended.capture(status)
    mixed = np.concatenate((runs_of(512, 4), [(8192, 8192, 2048)])).astype(np.uint64)
    with pytest.raises(StreamCapturedError, match="cuMemcpyBatchAsync cannot be captured"):
        copier.copy(host, device, mixed)
    assert pretended.calls() == []
    copier.copy(host, device, runs_of(512, 4))
    assert ways(pretended) == ["launch"]


@pytest.mark.parametrize(
    ("call", "do"),
    [
        ("cuLaunchKernel", lambda c, m: c.copy(m, m, runs_of(256, 2))),
        ("cuStreamIsCapturing", lambda c, m: c.copy(c.memory.pinned(8192), m, runs_of(2048, 1))),
        ("cuMemcpyBatchAsync", lambda c, m: c.copy(c.memory.pinned(8192), m, runs_of(2048, 1))),
        ("cuStreamSynchronize", lambda c, m: c.wait()),
        ("cuStreamQuery", lambda c, m: c.done()),
        ("cuMemHostAlloc", lambda c, m: c.memory.pinned(64)),
        ("cuMemHostRegister", lambda c, m: c.memory.pin(np.zeros(64, np.uint8))),
        ("cuMemCreate", lambda c, m: c.memory.exportable(64)),
        ("cuMemMap", lambda c, m: c.memory.exportable(64)),
        ("cuMemSetAccess", lambda c, m: c.memory.exportable(64)),
        ("cuIpcGetMemHandle", lambda c, m: c.memory.share(m)),
    ],
)
@pytest.mark.parametrize(
    ("status", "error"), [(2, DeviceError), (719, DeviceLostError), (801, DeviceError)]
)
def test_every_call_that_fails_is_a_typed_error_with_its_name(fake, call, do, status, error):
    pretended = fake()
    copier = copier_of(pretended)
    memory = copier.memory.allocate(8192)
    pretended.fail(call, status)
    before = pretended.live
    with pytest.raises(DeviceError, match=f"{call} failed with {status}") as caught:
        do(copier, memory)
    assert type(caught.value) is error
    del caught
    assert pretended.live == before


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("cuMemAlloc", "cuMemAlloc failed with 1"),
        ("cuLibraryLoadData", "cuLibraryLoadData failed with 1"),
        ("cuLibraryGetKernel", "cuLibraryGetKernel failed with 1"),
    ],
)
def test_what_cannot_be_made_says_so_and_leaves_nothing(fake, call, words):
    pretended = fake()
    pretended.fail(call, 1)
    with pytest.raises(_core.CudaDriverError, match=words):
        _core.KvCopier(pretended.driver, 0, IMAGE).allocate(64)
    assert pretended.live == 0


@pytest.mark.parametrize(
    ("define", "words"),
    [
        ('FAKE_MISSING="cuMemcpyBatchAsync"', "no cuMemcpyBatchAsync of CUDA 13000"),
        ('FAKE_MISSING="cuLibraryLoadData"', "no cuLibraryLoadData of CUDA 12000"),
        ("FAKE_VERSION=12080", "no cuMemcpyBatchAsync of CUDA 13000"),
    ],
)
def test_a_driver_without_the_calls_is_refused(fake, define, words):
    with pytest.raises(DeviceUnsupportedError, match=words):
        CudaKvCopy(fake(define).driver, 0, STREAM, blocks_max=1, crossover=CROSSOVER)


def test_without_kernels_there_is_no_copier(fake):
    with pytest.raises(_core.CudaDriverError, match="built without CUDA") as caught:
        _core.KvCopier(fake().driver, 0, b"")
    assert caught.value.fault == "absent"


def test_a_fault_on_the_device_is_a_lost_device_from_then_on(fake):
    pretended = fake()
    copier = copier_of(pretended)
    memory = copier.memory.allocate(4096)
    stray = KvMemory.of_device(16, 4096, 0, None)
    with pytest.raises(DeviceLostError, match=r"cuLaunchKernel failed with 700 .*ILLEGAL_ADDRESS"):
        copier.copy(stray, memory, runs_of(256, 1))
    for ask in (copier.wait, copier.done, lambda: copier.memory.pinned(64)):
        with pytest.raises(DeviceLostError):
            ask()
    assert pretended.calls() == [("launch", 1, 1), ("lanes", 32, 32)]


def test_all_memory_is_given_back(fake):
    pretended = fake()
    copier = copier_of(pretended)
    before = pretended.live
    memories = [
        copier.memory.allocate(64),
        copier.memory.pinned(64),
        copier.memory.pin(np.zeros(64, np.uint8)),
        copier.memory.exportable(64),
    ]
    # An exportable one is a physical allocation, an address range and a mapping.
    assert pretended.live == before + 6
    for memory in memories:
        memory.owner.close()
        memory.owner.close()
    assert pretended.live == before
    del memories, memory, copier
    assert pretended.live == 0


def test_closing_reports_what_a_destructor_cannot(fake):
    pretended = fake()
    memory = copier_of(pretended).memory.allocate(64)
    pretended.fail("cuMemFree", 1)
    with pytest.raises(_core.CudaDriverError, match="cuMemFree failed with 1"):
        memory.owner.close()


def test_pinned_memory_that_was_given_back_has_no_views(fake):
    copier = copier_of(fake())
    for memory in (copier.memory.pinned(64), copier.memory.pin(np.zeros(64, np.uint8))):
        assert memory.array().size == 64
        memory.owner.close()
        with pytest.raises(BufferError) as caught:
            memory.array()
        assert "given back" in str(caught.value.__cause__)


def test_views_of_pinned_memory_keep_it_and_memory_of_a_device_has_none(fake):
    pretended = fake()
    copier = copier_of(pretended)
    view = copier.memory.pinned(64).array()
    before = pretended.live
    view[:] = 7
    assert pretended.live == before
    with pytest.raises(BufferError):
        memoryview(copier.memory.allocate(64).owner)
    del view
    assert pretended.live == before - 1


def test_the_crossover_is_measured_once_and_kept(fake, tmp_path):
    pretended = fake()
    copier = _core.KvCopier(pretended.driver, 0, IMAGE)
    folder = tmp_path / "kept"
    arguments = (pretended.driver, 0, copier, STREAM, BLOCKS_MAX, pretended.seconds)
    measured = kept_or_calibrated(folder, *arguments)
    # 4 µs a launch and 25 GB/s against 0.5 µs a run and 50 GB/s: 16 KiB take 0.66 and 0.83 µs.
    assert (measured.to_device_bytes, measured.to_host_bytes) == (32768, 32768)
    assert [point.run_bytes for point in measured.to_device] == list(SIZES_BYTES)
    assert measured.to_host[-1].engine_gb_per_s > measured.to_host[-1].kernel_gb_per_s
    calls = len(pretended.calls())
    assert kept_or_calibrated(folder, *arguments) == measured
    assert len(pretended.calls()) == calls
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:40])
    assert kept_or_calibrated(folder, *arguments).to_host_bytes == 32768
    assert len(pretended.calls()) > calls
    opened = CudaKvCopy.open(
        pretended.driver, 0, STREAM, folder, blocks_max=BLOCKS_MAX, copier=copier
    )
    host, device = opened.memory.pinned(1 << 17), opened.memory.allocate(1 << 17)
    before = len(ways(pretended))
    opened.copy(host, device, runs_of(16384, 2))
    opened.copy(host, device, runs_of(32768, 2))
    assert ways(pretended)[before:] == ["launch", "batch"]


def test_a_folder_that_cannot_be_written_is_named(fake, tmp_path):
    pretended = fake()
    copier = _core.KvCopier(pretended.driver, 0, IMAGE)
    folder = tmp_path / "file"
    folder.write_text("")
    with pytest.raises(ConfigError) as caught:
        kept_or_calibrated(
            folder / "kept", pretended.driver, 0, copier, STREAM, BLOCKS_MAX, pretended.seconds
        )
    assert caught.value.field == "XDG_CACHE_HOME"
    assert str(folder) in str(caught.value)


def test_another_number_of_blocks_is_measured_anew(fake, tmp_path):
    pretended = fake()
    copier = _core.KvCopier(pretended.driver, 0, IMAGE)
    for blocks_max in (4, 8):
        kept = kept_or_calibrated(
            tmp_path / "kept", pretended.driver, 0, copier, STREAM, blocks_max, pretended.seconds
        )
        assert kept.blocks_max == blocks_max


def test_the_plain_rival_copies_the_same(fake):
    pretended = fake()
    copier = _core.KvCopier(pretended.driver, 0, IMAGE)
    src, dst = copier.allocate(4096), copier.allocate(4096)
    copier.copy_each((src.address, 4096), (dst.address, 4096), runs_of(256, 2), STREAM)
    assert pretended.calls() == [("copy", 0, 256), ("copy", 0, 256)]
