"""What processes hold while they run: memory, descriptors, threads, shared memory."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

EDGE = 0.1
"""Share of the samples that each end of a run is judged by."""
SHARED = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Held:
    """What one process holds at one moment."""

    rss_bytes: int
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of a process's memory, bytes: medians of both ends, and the most."""

    first_bytes: float
    last_bytes: float
    peak_bytes: int

    @property
    def share(self) -> float:
        """Growth as a share of what there was."""
        return self.last_bytes / self.first_bytes - 1.0


@dataclass(slots=True)
class Watcher:
    """Samples of some processes.

    Attributes:
        pids: Process id by name.
        samples: What each held, oldest first.
    """

    pids: Mapping[str, int]
    samples: dict[str, list[Held]] = field(default_factory=dict)

    def look(self) -> dict[str, Held]:
        """What each holds now."""
        return {name: held(pid) for name, pid in self.pids.items()}

    def sample(self) -> None:
        """Look and remember."""
        for name, now in self.look().items():
            self.samples.setdefault(name, []).append(now)

    def growth(self, name: str) -> Growth:
        """From the first samples of a process to its last ones."""
        sizes = [one.rss_bytes for one in self.samples[name]]
        count = max(1, int(len(sizes) * EDGE))
        first, last = statistics.median(sizes[:count]), statistics.median(sizes[-count:])
        return Growth(first, last, max(sizes))


def held(pid: int) -> Held:
    """What a process and its children hold."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return Held(
        sum(one.memory_info().rss for one in family),
        sum(one.num_fds() for one in family),
        sum(one.num_threads() for one in family),
    )


def shared_files() -> set[str]:
    """Shared memory that there is on this machine."""
    return {path.name for path in SHARED.iterdir()} if SHARED.is_dir() else set()
