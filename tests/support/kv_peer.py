"""Another process that maps KV memory: `kv_peer.py LIBRARY SOCKET_FD handle|fd`.

It gets the memory over the socket and copies the first half of it to the second by its own kernel:
the one that is built in, or what stands for it where the library is a pretended driver.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import msgspec
import numpy as np
from fake_cuda import IMAGE

from festina import _core
from festina.engine.kv_copy import KvMemory
from festina.engine.kv_copy_cuda import CudaKvCopy
from festina.engine.kv_crossover import Crossover
from festina.engine.kv_memory_cuda import SharedKvMemory

REAL = "libcuda.so.1"


def run_peer(library: str, way: str, send: Callable[[socket.socket], None]) -> bytes:
    """Start this file as another process, send it the memory, and see it end; what it answers."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(120)
        command = [sys.executable, __file__, library, str(theirs.fileno()), way]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as peer:
            theirs.close()
            send(ours)
            answer = ours.recv(16)
    assert peer.returncode == 0
    return answer


def map_memory(copier: CudaKvCopy, channel: socket.socket, way: str) -> KvMemory:
    if way == "handle":
        shared = msgspec.msgpack.decode(channel.recv(4096), type=SharedKvMemory)
        memory, again = copier.memory.map_shared(shared), copier.memory.map_shared(shared)
        assert memory.owner is again.owner
        return memory
    size, (fd,), _, _ = socket.recv_fds(channel, 64, 1)
    memory = copier.memory.map_fd(fd, int(size))
    os.close(fd)
    return memory


def main(library: str, socket_fd: str, way: str) -> None:
    driver = _core.CudaDriver(library)
    whole = _core.GreenContexts(driver, 0, [])
    copier = CudaKvCopy(
        driver,
        0,
        whole.streams(0, 0)[0],
        blocks_max=2,
        crossover=Crossover("", 0, 2, 0, 0, (), ()),
        copier=_core.KvCopier(driver, 0, None if library == REAL else IMAGE),
    )
    with socket.socket(fileno=int(socket_fd)) as channel:
        memory = map_memory(copier, channel, way)
        half = memory.size_bytes // 2
        copier.copy(memory, memory, np.array([(0, half, half)], np.uint64))
        copier.wait()
        channel.send(b"done")


if __name__ == "__main__":
    main(*sys.argv[1:])
