"""A rig for the benches of a GPU, in virtual time."""

from virtual_gpu import opened

from gpu.rig import Rig

SWITCH_S = 4e-6
LADDER_S = 0.030


class VirtualLadder:
    """Takes time to make and to switch, and memory."""

    def __init__(self, gpu, partitions):
        gpu.sleep(LADDER_S)
        gpu.free -= len(partitions) * 8 * 2**20
        self.partitions = partitions
        self._gpu = gpu

    def switch_to(self, rung):
        self._gpu.sleep(SWITCH_S)


def rig_of(**changes):
    """The rig and its GPU."""
    gpu, device, engine = opened(**changes)

    def together(jobs, seconds, started):
        """Halves of a GPU at once: whoever is behind in its own time does the next step."""
        for job in jobs:
            job()
        started()
        end, ends, results = gpu.now + seconds, [gpu.now] * len(jobs), [[] for _ in jobs]
        while min(ends) < end:
            turn = ends.index(min(ends))
            results[turn].append(jobs[turn]())
            ends[turn] += results[turn][-1].latency_ms / 1e3
        return results

    rig = Rig(
        device=device,
        engine=engine,
        gpu=gpu,
        make_ladder=lambda: VirtualLadder(gpu, device.partitions),
        clock=gpu.monotonic,
        sleep=gpu.sleep,
        together=together,
        window_s=1.0,
        settle_s=0.1,
    )
    return rig, gpu
