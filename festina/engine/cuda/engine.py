"""The GPU engine: PyTorch, our attention kernel, a paged KV cache, one lane per SM partition."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from festina import _core
from festina.config import DeploymentConfig
from festina.engine import kv_copy, models
from festina.engine.base import BLOCK_TOKENS, Batch, LoadedModel, StepResult
from festina.engine.cuda.building import Kernels, Source, build_decoder, open_source
from festina.engine.cuda.extras import require_kernels
from festina.engine.cuda.failures import typed
from festina.engine.cuda.graphs import BUCKETS, DecodeGraphs
from festina.engine.cuda.lanes import Ladder, Lanes
from festina.engine.cuda.pool import KvPool
from festina.engine.cuda.resident import Resident
from festina.engine.kv_copy_cuda import CudaKvCopy
from festina.engine.work import check_chunks, step_bytes, step_flops
from festina.errors import DeviceError, EngineError


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine computes.

    Attributes:
        dtype: Of weights, activations and KV cache.
        kernels: Whose attention and small operations.
        buckets: Batch sizes of decode graphs.
        graphs: Capture decode steps; GPUs only.
    """

    dtype: torch.dtype = torch.bfloat16
    kernels: Kernels = "device"
    buckets: tuple[int, ...] = BUCKETS
    graphs: bool = True


class CudaEngine:
    """Runs Llama-class models on one GPU (`Engine` in engine/base.py).

    Several deployments may be resident, each with its own weights and KV pool. `step` waits until
    the step is done, so whatever starts afterwards, on any partition, sees what it wrote.

    Threads: unlike other engines', steps may overlap. An agent may call `step` from one thread per
    partition at the same time, such as a prefill of one model on one half of a rung while another
    model, or other requests of the same model, decode on its other half, so long as no block is in
    two steps. Steps on one partition wait for each other. Partitions of different rungs share SMs:
    steps on them are correct side by side, but neither has its SMs to itself. `export_blocks` and
    `import_blocks` of blocks that are in no step may overlap with steps, too, and wait for each
    other. `load` and `unload` must have the engine to themselves.

    Args:
        device: A GPU; or the CPU, with plain kernels, for tests.
        lanes: Where steps run.
        options: How it computes.
        copier: Reaches its KV pools; None is for the CPU.
        models_dir: Cache folder of known models; None takes the user's.
        free_bytes: Memory that is left for weights and pools; None does not ask.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        device: torch.device,
        lanes: Lanes,
        options: EngineOptions | None = None,
        *,
        copier: kv_copy.KvCopy | None = None,
        models_dir: Path | None = None,
        free_bytes: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._device = device
        self._lanes = lanes
        self._options = options or EngineOptions()
        self._copier = copier or kv_copy.HostKvCopy()
        self._copying = threading.Lock()
        self._models_dir = models_dir
        self._free_bytes = free_bytes
        self._clock = clock
        self._captures = threading.Lock() if self._options.graphs else None
        self._resident: dict[str, Resident] = {}

    @classmethod
    def on_gpu(cls, ordinal: int, ladder: Ladder, models_dir: Path | None = None) -> CudaEngine:
        """An engine on the GPU that CUDA calls `ordinal`, with a lane per partition of `ladder`.

        Raises:
            UnsupportedEngineError: festina was built without its CUDA kernels.
            DeviceError: PyTorch cannot use the GPU.
            ConfigError: The user's cache folder cannot be written.
        """
        require_kernels()
        if not torch.cuda.is_available():
            raise DeviceError(
                f"PyTorch {torch.__version__} finds no usable GPU",
                field="gpus",
                expected=f"a driver for CUDA {torch.version.cuda}",
            )
        device = torch.device("cuda", ordinal)
        torch.cuda.set_device(device)
        torch.backends.cuda.preferred_blas_library("cublas")  # see blas.py
        copies = torch.cuda.Stream(device)
        return cls(
            device,
            Lanes.on_gpu(ladder, ordinal),
            copier=CudaKvCopy.open(
                _core.CudaDriver(), ordinal, copies.cuda_stream, models.default_cache_dir().parent
            ),
            models_dir=models_dir,
            free_bytes=lambda: _free_bytes(device),
        )

    def load(self, deployment: DeploymentConfig) -> LoadedModel:
        """Read or make the weights, and make room for the KV pool.

        Raises:
            WeightsError: The file is missing, truncated or inconsistent.
            UnsupportedModelError: Its architecture or quantisation is not implemented.
            DeviceError: Weights and KV pool do not fit on the device.
            EngineLostError: The device failed.
        """
        source = open_source(deployment.weights, self._models_dir)
        blocks = -(-deployment.kv_tokens // BLOCK_TOKENS)
        self._require_room(source, blocks)
        with typed():
            resident = self._build(source, deployment, blocks)
            if self._device.type == "cuda":
                # What makes weights and pool is given to this thread's stream, for which the
                # lanes' and the copies' do not wait.
                torch.cuda.synchronize(self._device)
        self._resident[deployment.name] = resident
        return LoadedModel(deployment.name, resident.shape, blocks, source.tokenizer)

    def unload(self, model: str) -> None:
        """Give weights and KV pool back. Unknown names are an error of the caller (KeyError)."""
        del self._resident[model]
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def step(self, batch: Batch) -> StepResult:
        """Compute one step on its partition, and wait for it; see the class about threads.

        Raises:
            EngineError: The model is not resident, a chunk is wrong or the device has no such
                partition, and nothing was written; or memory ran out.
            EngineLostError: The device failed: what runs on it must be started anew.
        """
        start = self._clock()
        resident = self._resident_of(batch.model)
        shape, config = resident.shape, resident.config
        check_chunks(batch.chunks, resident.pool.blocks, config.vocabulary)
        self._check_context(batch, shape.context_tokens)
        lane = self._lanes.of(batch.partition)
        with typed(), lane.entered():
            token_ids = resident.run(batch.chunks, lane)
        flops = step_flops(batch.chunks, shape, config)
        bytes_moved = step_bytes(batch.chunks, shape, config)
        return StepResult(tuple(token_ids), (self._clock() - start) * 1e3, flops, bytes_moved)

    def export_blocks(self, model: str, blocks: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Contents of KV blocks, uint8 (len(blocks), bytes per block), a copy.

        Raises:
            EngineError: The model is not resident, or a block lies outside its pool.
            DeviceError: The device failed.
        """
        content = self._resident_of(model).pool.content
        with self._copying:
            return kv_copy.export_blocks(self._copier, content, blocks)

    def import_blocks(self, model: str, blocks: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Write what `export_blocks` gave into other blocks of the same deployment's pool.

        Raises:
            EngineError: As `export_blocks`, or `data` has another shape than these blocks, or a
                block is named twice.
            DeviceError: As `export_blocks`.
        """
        content = self._resident_of(model).pool.content
        with self._copying:
            kv_copy.import_blocks(self._copier, content, blocks, data)

    def _build(self, source: Source, deployment: DeploymentConfig, blocks: int) -> Resident:
        config, options, device = source.config, self._options, self._device
        try:
            tensors = source.tensors(device, options.dtype)
            pool = KvPool(config, blocks, device, options.dtype)
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{deployment.name} does not fit: {error}",
                field="kv_tokens",
                expected="what fits beside the weights",
            ) from error
        decoder = build_decoder(config, tensors, pool, options.kernels)
        context_tokens = min(deployment.context_tokens, config.context_tokens)
        width = -(-context_tokens // BLOCK_TOKENS)
        shape = dataclasses.replace(
            source.shape,
            weight_bytes=tensors.read_bytes,
            kv_bytes_per_token=pool.block_bytes // BLOCK_TOKENS,
            context_tokens=context_tokens,
        )
        graphs = DecodeGraphs(decoder, device, width, pool.spare, options.buckets, self._captures)
        return Resident(config, shape, pool, decoder, graphs, device)

    def _require_room(self, source: Source, blocks: int) -> None:
        if self._free_bytes is None:
            return
        itemsize = self._options.dtype.itemsize
        weight_bytes = source.weights_resident * itemsize
        kv_bytes = (blocks + 1) * BLOCK_TOKENS * source.config.kv_values_per_token * itemsize
        free_bytes = self._free_bytes()
        if weight_bytes + kv_bytes > free_bytes:
            raise DeviceError(
                f"{weight_bytes} bytes of weights and {kv_bytes} of KV cache",
                field="kv_tokens",
                expected=f"at most {free_bytes} bytes in all",
            )

    def _check_context(self, batch: Batch, context_tokens: int) -> None:
        for index, chunk in enumerate(batch.chunks):
            if chunk.start + len(chunk.token_ids) > context_tokens:
                raise EngineError(
                    f"token {chunk.start + len(chunk.token_ids)}",
                    field=f"chunks[{index}]",
                    expected=f"at most {context_tokens} tokens of context",
                )

    def _resident_of(self, model: str) -> Resident:
        try:
            return self._resident[model]
        except KeyError:
            raise EngineError(
                f"{model!r} is not resident", field="model", expected="a loaded deployment"
            ) from None


def _free_bytes(device: torch.device) -> int:
    """Memory that nobody uses, and what PyTorch holds without using it."""
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + int(held)
