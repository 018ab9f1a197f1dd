"""Two hosts in one: network namespaces with a cable between them that can be cut."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.processes import children_of

from festina.engine.cpu import COMPUTE_ENV


def can_make_hosts() -> bool:
    """Whether this process may make network namespaces (root, or a container that allows it)."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return False
    name = f"festina-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return False
    _ip("netns", "del", name)
    return True


class Hosts:
    """Two namespaces, `addresses[0]` and `addresses[1]`, gone when the block ends.

    Processes that were started in them are killed then.
    """

    def __init__(self) -> None:
        number = os.getpid()
        self._names = [f"festina-a{number}", f"festina-b{number}"]
        self._cards = [f"fa{number % 10**8}", f"fb{number % 10**8}"]
        self._processes: list[subprocess.Popen[str]] = []
        self.addresses = ["10.213.77.1", "10.213.77.2"]

    def __enter__(self) -> Self:
        for name in self._names:
            _ip("netns", "add", name)
        _ip("link", "add", self._cards[0], "type", "veth", "peer", "name", self._cards[1])
        for name, card, address in zip(self._names, self._cards, self.addresses, strict=True):
            _ip("link", "set", card, "netns", name)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", card)
            _ip("-n", name, "link", "set", card, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        for name in self._names:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)

    def cut(self) -> None:
        """Pull the cable."""
        _ip("-n", self._names[1], "link", "set", self._cards[1], "down")

    def heal(self) -> None:
        """Plug it in again."""
        _ip("-n", self._names[1], "link", "set", self._cards[1], "up")

    def festina(
        self, host: int, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """`festina ARGUMENTS` on a host, with these variables beside those of this process."""
        return self.python(host, "-m", "festina", *arguments, environment=environment)

    def python(
        self, host: int, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """The interpreter on a host; its stdin and stdout are pipes.

        It sees no other processes, so nothing shares memory with it. It is not the first one of its
        namespace, for that one could not be held still.
        """
        alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        second = ["sh", "-c", '"$@"; exit $?', "sh"]
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._names[host], *alone, *second, sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **COMPUTE_ENV, **(environment or {})},
            cwd=Path(__file__).parents[2],
        )
        self._processes.append(process)
        return process


def innermost(process: subprocess.Popen[str]) -> int:
    """Process id of what runs inside all the wrappers."""
    pid = process.pid
    while children := children_of(pid):
        pid = children[0]
    return pid


def first_line(process: subprocess.Popen[str]) -> str:
    """What it says first: where it listens."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, f"it ended with {process.wait()}"
    return line


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
