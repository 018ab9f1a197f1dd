"""The GPU engine: PyTorch, our attention kernel, a paged KV cache, one lane per SM partition."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from festina.config import DeploymentConfig
from festina.engine import kv_copy
from festina.engine.architecture import DecoderConfig
from festina.engine.base import BLOCK_TOKENS, Batch, LoadedModel, StepResult
from festina.engine.cuda.building import Source, build_decoder, open_source
from festina.engine.cuda.failures import typed
from festina.engine.cuda.graph_plan import GraphNeed
from festina.engine.cuda.graphs import Capture, DecodeGraphs, GraphCapture, recompute
from festina.engine.cuda.lanes import Lanes
from festina.engine.cuda.options import EngineOptions
from festina.engine.cuda.pool import KvPool
from festina.engine.cuda.resident import Resident
from festina.engine.sampling import all_logprobs
from festina.engine.work import check_chunks, step_bytes, step_flops
from festina.errors import DeviceError, EngineError


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
        free_bytes: Memory that is left for weights, pools and graphs; None does not ask.
        capture: Makes a decode step's graph; None takes CUDA's, or steps run eagerly on a CPU.
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
        capture: Capture | None = None,
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
        self._capture = capture or (GraphCapture() if device.type == "cuda" else recompute)
        self._resident: dict[str, Resident] = {}

    def load(self, deployment: DeploymentConfig) -> LoadedModel:
        """Read or make the weights, make room for the KV pool, and capture likely decode steps.

        Raises:
            WeightsError: The file is missing, truncated or inconsistent.
            UnsupportedModelError: Its architecture or quantisation is not implemented.
            DeviceError: Weights, KV pool and graphs do not fit on the device.
            EngineLostError: The device failed.
        """
        source = open_source(deployment.weights, self._models_dir)
        blocks = -(-deployment.kv_tokens // BLOCK_TOKENS)
        with typed("kv_tokens", memory=DeviceError):
            self._require_room(source, deployment, blocks)
            resident = self._build(source, deployment, blocks)
            if self._device.type == "cuda":
                # What makes weights and pool is given to this thread's stream, for which the
                # lanes' and the copies' do not wait.
                torch.cuda.synchronize(self._device)
            plan = self._options.graphs.ahead_of_use(len(self._lanes))
            for lane, buckets in zip(self._lanes, plan, strict=True):
                with lane.entered():
                    resident.graphs.prepare(lane, buckets)
        self._resident[deployment.name] = resident
        return LoadedModel(deployment.name, resident.shape, blocks, source.tokenizer)

    def unload(self, model: str) -> None:
        """Give weights, KV pool and graphs back. Unknown names are the caller's error (KeyError).

        Raises:
            EngineLostError: The device failed.
        """
        del self._resident[model]
        if self._device.type == "cuda":
            with typed():
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
            chosen = resident.run(batch.chunks, lane)
        token_ids = tuple(None if one is None else one.token_id for one in chosen)
        flops = step_flops(batch.chunks, shape, config)
        bytes_moved = step_bytes(batch.chunks, shape, config)
        latency_ms = (self._clock() - start) * 1e3
        return StepResult(token_ids, latency_ms, flops, bytes_moved, all_logprobs(chosen))

    def export_blocks(self, model: str, blocks: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Contents of KV blocks, uint8 (len(blocks), bytes per block), a copy.

        Raises:
            EngineError: The model is not resident, or a block lies outside its pool.
            EngineLostError: The device failed.
            DeviceError: It refused.
        """
        content = self._resident_of(model).pool.content
        with self._copying, typed():
            return kv_copy.export_blocks(self._copier, content, blocks)

    def import_blocks(self, model: str, blocks: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Write what `export_blocks` gave into other blocks of the same deployment's pool.

        Raises:
            EngineError: As `export_blocks`, or `data` has another shape than these blocks, or a
                block is named twice.
            EngineLostError: As `export_blocks`.
            DeviceError: As `export_blocks`.
        """
        content = self._resident_of(model).pool.content
        with self._copying, typed():
            kv_copy.import_blocks(self._copier, content, blocks, data)

    def _build(self, source: Source, deployment: DeploymentConfig, blocks: int) -> Resident:
        config, options, device = source.config, self._options, self._device
        tensors = source.tensors(device, options.dtype)
        pool = KvPool(config, blocks, device, options.dtype)
        decoder = build_decoder(config, tensors, pool, options.kernels)
        context_tokens = _context_tokens(source, deployment)
        shape = dataclasses.replace(
            source.shape,
            weight_bytes=tensors.read_bytes,
            kv_bytes_per_token=pool.block_bytes // BLOCK_TOKENS,
            context_tokens=context_tokens,
        )
        rules = options.graphs
        graphs = DecodeGraphs(
            decoder,
            device,
            width=-(-context_tokens // BLOCK_TOKENS),
            spare=pool.spare,
            buckets=rules.useful,
            capture=self._capture,
            late=0 if rules.ahead else rules.most,
        )
        return Resident(config, shape, pool, decoder, graphs, device)

    def _require_room(self, source: Source, deployment: DeploymentConfig, blocks: int) -> None:
        if self._free_bytes is None:
            return
        itemsize = self._options.dtype.itemsize
        weight_bytes = source.weights_resident * itemsize
        kv_bytes = (blocks + 1) * BLOCK_TOKENS * source.config.kv_values_per_token * itemsize
        width = -(-_context_tokens(source, deployment) // BLOCK_TOKENS)
        graphs_bytes = self._graphs_bytes(source.config, width, self._options.graphs.most)
        free_bytes = self._free_bytes() - sum(
            self._graphs_bytes(one.config, one.graphs.width, one.graphs.late)
            for one in self._resident.values()
        )
        if weight_bytes + kv_bytes + graphs_bytes > free_bytes:
            raise DeviceError(
                f"{weight_bytes} bytes of weights, {kv_bytes} of KV cache and "
                f"{graphs_bytes} for decode graphs",
                field="kv_tokens",
                expected=f"at most {max(0, free_bytes)} bytes in all",
            )

    def _graphs_bytes(self, config: DecoderConfig, width: int, most: int) -> int:
        """Memory that so many graphs of a model may take."""
        rules = dataclasses.replace(self._options.graphs, most=most)
        need = GraphNeed(config, width, self._options.dtype.itemsize, self._lanes.sms)
        return need.planned_bytes(rules, len(self._lanes))

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


def _context_tokens(source: Source, deployment: DeploymentConfig) -> int:
    return min(deployment.context_tokens, source.config.context_tokens)
