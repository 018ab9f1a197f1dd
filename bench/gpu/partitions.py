"""What a ladder of partitions costs to make, and to switch."""

from __future__ import annotations

from festina.errors import DeviceError

from .figures import Outcome
from .rig import Rig

SWITCHES = 2000
_MIB = 2**20


def run(rig: Rig) -> Outcome:
    """Makes a second ladder on the GPU, and switches from each of its rungs to the next.

    Raises:
        DeviceError: There is nothing to switch between.
    """
    free_bytes = rig.gpu.memory_free_bytes()
    start = rig.clock()
    ladder = rig.make_ladder()
    made_s = rig.clock() - start
    taken_bytes = free_bytes - rig.gpu.memory_free_bytes()
    rungs = sorted({one.rung for one in ladder.partitions})
    if len(rungs) < 2:
        raise DeviceError("the GPU has no partitions", field="partitions")
    start = rig.clock()
    for number in range(1, SWITCHES + 1):  # rung 0 is the one in force
        ladder.switch_to(rungs[number % len(rungs)])
    switched_s = rig.clock() - start
    return Outcome(
        {
            "ladder_ms": 1e3 * made_s,
            "ladder_memory_mib": max(0, taken_bytes) / len(ladder.partitions) / _MIB,
            "rung_switch_us": 1e6 * switched_s / SWITCHES,
        }
    )
