"""Which decode steps get a CUDA graph, when, and how much of the device's memory that takes.

A capture takes long enough to miss an objective, so what is likely to be asked for is captured
while a model is loaded; the rest runs eagerly. Graphs are counted before a model is let in, beside
its weights and its KV pool.
"""

from __future__ import annotations

from dataclasses import dataclass

from festina.engine.architecture import DecoderConfig
from festina.engine.cuda.batches import Layout
from festina.engine.cuda.native import BLOCKS_PER_SM

BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Sequences of a graph. A larger decode batch runs eagerly: there launches cost little."""

NODE_BYTES = 16 * 1024
"""Device memory of a node of a graph, generously. Not yet measured."""

LAYER_NODES = 14
OTHER_NODES = 16
"""Kernels and copies of a decode step: of each layer, and besides. At most, by counting them."""

WORKSPACE_BYTES = 32 * 2**20
"""What PyTorch gives to cuBLAS for each stream on Hopper; less elsewhere."""

SEGMENT_BYTES = 20 * 2**20
"""What PyTorch's pools of memory round up to."""

_INT_BYTES = _FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class GraphRules:
    """Which graphs a model may have.

    Attributes:
        most: How many, over all lanes; what has none runs eagerly.
        ahead: They are captured when the model is loaded; else when a step first needs them.
        batch_max: Sequences of the largest step that there will be.
        buckets: Sequences of a graph, ascending.
    """

    most: int = len(BUCKETS)
    ahead: bool = True
    batch_max: int = BUCKETS[-1]
    buckets: tuple[int, ...] = BUCKETS

    @property
    def useful(self) -> tuple[int, ...]:
        """Buckets that a step of at most `batch_max` may need."""
        below = sum(size < self.batch_max for size in self.buckets)
        return self.buckets[: below + 1] if self.most else ()

    def ahead_of_use(self, lanes: int) -> list[tuple[int, ...]]:
        """Buckets to capture on each lane when a model is loaded.

        The likely ones: on the whole device, which comes first, before its partitions; and small
        batches before large ones.
        """
        left, useful = self.most if self.ahead else 0, self.useful
        taken = []
        for _ in range(lanes):
            taken.append(useful[:left])
            left -= len(taken[-1])
        return taken


@dataclass(frozen=True, slots=True)
class GraphNeed:
    """How much memory the graphs of a model may take. Estimated, from above.

    Attributes:
        config: Its decoder.
        width: Entries of a block table.
        itemsize: Bytes of an activation.
        sms: SMs of the device.
    """

    config: DecoderConfig
    width: int
    itemsize: int
    sms: int

    def planned_bytes(self, rules: GraphRules, lanes: int) -> int:
        """All graphs that there will be when the model is loaded, and those that may follow."""
        useful = rules.useful
        if not useful:
            return 0
        if rules.ahead:
            taken = [buckets for buckets in rules.ahead_of_use(lanes) if buckets]
        else:  # which ones is not known: at worst the largest, on as many lanes as there are
            count = min(rules.most, lanes * len(useful))
            taken = [useful[-1:]] * count
            lanes = min(lanes, count)
        graphs = sum(self.graph_bytes(bucket) for buckets in taken for bucket in buckets)
        return graphs + min(lanes, len(taken)) * self.lane_bytes(useful[-1])

    def graph_bytes(self, bucket: int) -> int:
        """One graph's nodes and input."""
        nodes = self.config.layers * LAYER_NODES + OTHER_NODES
        return nodes * NODE_BYTES + _INT_BYTES * Layout(bucket, bucket, self.width).size

    def lane_bytes(self, rows: int) -> int:
        """What the graphs of one lane share, the largest of `rows` sequences."""
        config = self.config
        logits = rows * config.vocabulary * (_FLOAT_BYTES + self.itemsize)
        heads = config.heads + 2 * config.kv_heads
        states = 4 * config.width + 2 * heads * config.head_dim + 3 * config.ff_width
        parts = (BLOCKS_PER_SM * self.sms + rows * config.kv_heads) * (
            config.heads // config.kv_heads
        )
        scratch = parts * (config.head_dim + 2) * _FLOAT_BYTES
        activations = rows * states * self.itemsize + scratch
        return logits + activations + WORKSPACE_BYTES + SEGMENT_BYTES
