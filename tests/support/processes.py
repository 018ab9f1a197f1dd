"""What a test sees of processes on this machine."""

import os
import time
from pathlib import Path


def children_of(pid):
    """Process ids of the living children of `pid`, smallest first."""
    listed = [
        child
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return sorted(child for child in map(int, listed) if is_running(child))


def open_descriptors(pid="self"):
    """How many file descriptors a process holds."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def is_running(pid):
    """Whether there is such a process, and it is not just waited for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def rss_bytes(pid):
    """Memory of its own that a process has resident."""
    text = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def wait_for(condition, within_s=20.0):
    """Until `condition()` is true; its value."""
    give_up = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.005)
    return found
