"""An H100 in virtual time behind NVML's seam, and an engine whose steps take what physics says."""

import math
from dataclasses import dataclass, field

import numpy as np
from fake_gpu import FakeGpu, FakeGuard

from festina.device import physics
from festina.device.nvidia.device import NvidiaDevice
from festina.device.nvidia.ladder import ladder_sms
from festina.engine.base import BLOCK_TOKENS, LoadedModel, ModelShape, StepResult
from festina.engine.simulated_tokenizer import SimulatedTokenizer
from festina.types import SmPartition

H100 = physics.gpu_named("h100")
CLOCKS_MHZ = tuple(range(345, 1981, 15))
BARE_W = 50.0


@dataclass
class VirtualGpu(FakeGpu):
    """`clock` is what the sensor shows: below the locked clock where power is capped."""

    clocks: tuple[int, ...] = CLOCKS_MHZ
    bias: float = 1.1  # its steps take longer and draw more than physics says
    steps: int = 0
    known: dict = field(default_factory=dict)

    def clock_mhz(self):
        self._check("clock_mhz")
        return self.clock

    @property
    def asked_mhz(self):
        return self.locked[-1] if self.locked and not self.resets_since_lock else 1980

    resets_since_lock: bool = False

    def lock_clock(self, clock_mhz):
        super().lock_clock(clock_mhz)
        self.clock, self.resets_since_lock = clock_mhz, False

    def reset_clock(self):
        super().reset_clock()
        self.resets_since_lock = True

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        """Nothing runs meanwhile."""
        self.run(self.now + seconds, self.idle_w())

    def idle_w(self):
        return float(physics.idle_w(H100, self.asked_mhz))

    def step(self, decoder, chunks, sms):
        """A step at the clock that its power allows; gives its latency in ms and its work."""
        key = (decoder.name, chunks, sms, self.asked_mhz)
        if key not in self.known:
            work = physics.step_work(decoder, chunks)
            self.known[key] = work, physics.run(H100, work, sms, self.asked_mhz)
        work, point = self.known[key]
        latency_ms = self.bias * float(point.latency_ms)
        self.clock = int(point.clock_mhz)
        self.steps += 1
        self.run(self.now + latency_ms / 1e3, self.idle_w() + float(point.dynamic_w) * self.bias)
        return latency_ms, work


class VirtualEngine:
    """Runs shapes on a `VirtualGpu`. `gap_ms` passes between steps, in which nothing runs."""

    def __init__(self, gpu, gap_ms=0.2):
        self.gpu = gpu
        self.gap_ms = gap_ms
        self.decoders = {}
        self.kv_tokens = 0

    def load(self, deployment):
        decoder = physics.model_named(deployment.weights.partition(":")[2])
        self.gpu.sleep(1.0)
        self.decoders[deployment.name] = decoder
        self.kv_tokens = deployment.kv_tokens
        shape = ModelShape(
            parameters=decoder.parameters,
            weight_bytes=decoder.weight_bytes,
            kv_bytes_per_token=decoder.kv_bytes_per_token,
            context_tokens=deployment.context_tokens,
            vocabulary=decoder.vocabulary,
        )
        blocks = math.ceil(deployment.kv_tokens / BLOCK_TOKENS)
        return LoadedModel(deployment.name, shape, blocks, SimulatedTokenizer())

    def unload(self, model):
        del self.decoders[model]

    def step(self, batch):
        chunks = tuple((len(chunk.token_ids), chunk.start) for chunk in batch.chunks)
        self.gpu.sleep(self.gap_ms / 1e3)
        latency_ms, work = self.gpu.step(self.decoders[batch.model], chunks, batch.partition.sms)
        return StepResult(
            tuple(None if chunk.sampling is None else 1 for chunk in batch.chunks),
            latency_ms,
            float(work.flops),
            float(work.bytes_moved),
        )

    def export_blocks(self, model, blocks):
        return np.zeros((len(blocks), 1), np.uint8)

    def import_blocks(self, model, blocks, data):
        assert len(data) == len(blocks)


def ladder():
    """Partitions of an H100, as its driver makes them."""
    firsts = ladder_sms(132, 8, 8)
    halves = (
        (rung, side, sms)
        for rung, first in enumerate(firsts, 1)
        for side, sms in ((0, first), (1, 132 - first))
    )
    return (SmPartition(0, 132), *(SmPartition(rung, sms, side) for rung, side, sms in halves))


def opened(**changes):
    """The GPU, its device and an engine."""
    gpu = VirtualGpu(**changes)
    device = NvidiaDevice(gpu, ladder(), FakeGuard(), now=0.0)
    return gpu, device, VirtualEngine(gpu)
