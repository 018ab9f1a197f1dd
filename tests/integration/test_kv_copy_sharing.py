"""KV memory of one process mapped by another, on a pretended driver whose memory is shared."""

import ctypes
import os
import socket

import msgspec
import numpy as np
import pytest
from fake_cuda import IMAGE, FakeCuda
from kv_peer import run_peer

from festina import _core
from festina.engine.kv_copy import KvMemory
from festina.engine.kv_copy_cuda import CudaKvCopy
from festina.engine.kv_crossover import Crossover
from festina.errors import DeviceError, EngineError

CROSSOVER = Crossover("", 0, 2, 0, 0, (), ())


@pytest.fixture
def copier(tmp_path):
    fake = FakeCuda(tmp_path)
    made = _core.KvCopier(fake.driver, 0, IMAGE)
    return CudaKvCopy(fake.driver, 0, 64, blocks_max=2, crossover=CROSSOVER, copier=made)


def seen(memory: KvMemory) -> np.ndarray:
    buffer = (ctypes.c_uint8 * memory.size_bytes).from_address(memory.address)
    return np.frombuffer(buffer, np.uint8)


def test_an_allocation_is_mapped_by_its_handle_and_offset(copier, tmp_path):
    pool = copier.memory.allocate(1 << 16)
    seen(pool)[:] = np.arange(1 << 16) % 251
    before = seen(pool).copy()
    part = KvMemory.of_device(pool.address + 4096, 8192, 0, pool)
    shared = copier.memory.share(part)
    assert (shared.offset, shared.size_bytes, shared.allocation_bytes) == (4096, 8192, 1 << 16)
    message = msgspec.msgpack.encode(shared)
    assert (
        run_peer(str(tmp_path / "libcuda.so.1"), "handle", lambda channel: channel.send(message))
        == b"done"
    )
    before[8192:12288] = before[4096:8192]
    assert np.array_equal(seen(pool), before)


def test_memory_made_for_it_is_mapped_by_descriptor(copier, tmp_path):
    pool = copier.memory.exportable(100_000)
    assert pool.size_bytes == 131_072
    seen(pool)[:] = np.arange(131_072) % 251
    fd = copier.memory.export_fd(pool)

    def send(channel):
        socket.send_fds(channel, [str(pool.size_bytes).encode()], [fd])
        os.close(fd)

    assert run_peer(str(tmp_path / "libcuda.so.1"), "fd", send) == b"done"
    assert np.array_equal(seen(pool)[65536:], seen(pool)[:65536])


def test_an_owner_that_is_gone_is_an_error(copier):
    shared = copier.memory.share(copier.memory.allocate(4096))
    with pytest.raises(DeviceError, match="cuIpcOpenMemHandle failed with 201"):
        copier.memory.map_shared(msgspec.structs.replace(shared, handle=b"\0" * 64))


def test_a_device_that_this_process_does_not_see_is_an_error(copier):
    shared = copier.memory.share(copier.memory.allocate(4096))
    with pytest.raises(DeviceError, match="GPU-elsewhere holds it"):
        copier.memory.map_shared(msgspec.structs.replace(shared, device="GPU-elsewhere"))


def test_memory_that_cannot_be_shared_is_refused(copier):
    plain, pinned = copier.memory.allocate(4096), copier.memory.pinned(4096)
    with pytest.raises(DeviceError, match="cuMemGetAddressRange failed with 1"):
        copier.memory.share(pinned)
    with pytest.raises(EngineError, match="expected one of exportable"):
        copier.memory.export_fd(KvMemory.of_device(plain.address, 64, 0, None))
    with pytest.raises(ValueError, match="shared by descriptor"):
        plain.owner.export_fd()


def test_a_descriptor_that_is_not_one_is_an_error(copier):
    with pytest.raises(DeviceError, match="cuMemImportFromShareableHandle failed with 1"):
        copier.memory.map_fd(9999, 65536)
