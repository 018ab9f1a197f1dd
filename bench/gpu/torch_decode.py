"""The rival: a Llama's decode step in plain PyTorch, bf16, captured as one CUDA graph.

What somebody would write who wants a fast step and nothing else: fused projections, the library's
attention, a static cache, no paging, no partitions. Weights are random.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn import functional

from festina.device.physics import Decoder, model_named

WARM_UP = 3
STEPS = 200


class PlainDecoder:
    """One sequence, one token a step, at a fixed place of a static cache.

    Args:
        shape: Sizes.
        context: Tokens in the cache.
        device: Where.
        dtype: Of weights and cache.
    """

    def __init__(
        self, shape: Decoder, context: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.shape = shape
        self.context = context
        generator = torch.Generator(device).manual_seed(0)

        def matrix(rows: int, columns: int) -> torch.Tensor:
            out = torch.empty((rows, columns), dtype=dtype, device=device)
            return out.normal_(0.0, columns**-0.5, generator=generator)

        hidden, size = shape.hidden, shape.head_size
        rows = (shape.heads + 2 * shape.kv_heads) * size
        self.layers = [
            (
                matrix(rows, hidden),
                matrix(hidden, shape.heads * size),
                matrix(2 * shape.feed_forward, hidden),
                matrix(hidden, shape.feed_forward),
                matrix(2 * shape.kv_heads * (context + 1), size).view(
                    2, 1, shape.kv_heads, context + 1, size
                ),
            )
            for _ in range(shape.layers)
        ]
        self.embedding = matrix(shape.vocabulary, hidden)
        self.head = self.embedding if shape.tied else matrix(shape.vocabulary, hidden)
        self.norm = torch.ones(hidden, dtype=dtype, device=device)
        angles = context * 5e5 ** (-torch.arange(0, size, 2, device=device) / size)
        self.cos, self.sin = angles.cos().to(dtype), angles.sin().to(dtype)
        self.token = torch.ones(1, dtype=torch.int64, device=device)
        self.best = torch.zeros(1, dtype=torch.int64, device=device)

    @torch.inference_mode()
    def step(self) -> None:
        """Compute the next token from `token` into `best`."""
        shape, size = self.shape, self.shape.head_size
        split = (shape.heads * size, shape.kv_heads * size, shape.kv_heads * size)
        x = self.embedding[self.token]
        for qkv, output, gate_up, down, cache in self.layers:
            q, k, v = (self._normed(x) @ qkv.T).split(split, dim=-1)
            q, k = (self._turned(one.view(1, -1, 1, size)) for one in (q, k))
            cache[0, :, :, self.context :] = k
            cache[1, :, :, self.context :] = v.view(1, -1, 1, size)
            seen = functional.scaled_dot_product_attention(q, cache[0], cache[1], enable_gqa=True)
            x = x + seen.reshape(1, -1) @ output.T
            gate, up = (self._normed(x) @ gate_up.T).chunk(2, dim=-1)
            x = x + (functional.silu(gate) * up) @ down.T
        self.best.copy_((self._normed(x) @ self.head.T).argmax(dim=-1))

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.norm, 1e-5)

    def _turned(self, x: torch.Tensor) -> torch.Tensor:
        low, high = x.chunk(2, dim=-1)
        return torch.cat((low * self.cos - high * self.sin, high * self.cos + low * self.sin), -1)


def decode_ms(shape: str, context: int) -> float:
    """Median duration of a step on the current GPU, from a graph."""
    decoder = PlainDecoder(model_named(shape), context, torch.device("cuda"), torch.bfloat16)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            decoder.step()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        decoder.step()
    return median_ms(graph.replay)


def median_ms(job: Callable[[], object], steps: int = STEPS) -> float:
    """Median duration of a job on the current GPU, waits included."""
    durations = []
    for _ in range(WARM_UP + steps):
        start = time.perf_counter()
        job()
        torch.cuda.synchronize()
        durations.append(1e3 * (time.perf_counter() - start))
    return sorted(durations[WARM_UP:])[steps // 2]
