"""The CPU engine: GGUF weights as they lie on disk, a paged KV cache, one compute thread."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from festina.config import DeploymentConfig
from festina.engine import kv_copy, models
from festina.engine.architecture import DecoderConfig, read_config
from festina.engine.base import BLOCK_TOKENS, Batch, LoadedModel, ModelShape, StepResult
from festina.engine.cpu.resident import KvPool, Resident, build_decoder
from festina.engine.model_file import open_tokenizer, open_weights
from festina.engine.sampling import Chosen, all_logprobs, sample
from festina.engine.weights import DecoderWeights, model_shape, read_weights
from festina.engine.work import FlatStep, flatten, step_bytes, step_flops
from festina.errors import DeviceError, EngineError


class CpuEngine:
    """Runs Llama-class models on one core (`Engine` in engine/base.py).

    Several deployments may be resident, of the same file too; each has its own mapping and pool.
    A step computes on the calling thread alone and without the GIL. The numpy fallback would spin
    up BLAS threads: start the process with `festina.engine.cpu.COMPUTE_ENV`. Not thread-safe.

    Args:
        models_dir: Cache folder of known models; None takes the user's.
        isa: Instruction set of the kernels, or "numpy"; "" takes the best.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        models_dir: Path | None = None,
        *,
        isa: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._models_dir = models_dir
        self._isa = isa
        self._clock = clock
        self._resident: dict[str, Resident] = {}
        self._copier = kv_copy.HostKvCopy()

    def load(self, deployment: DeploymentConfig) -> LoadedModel:
        """Map the weights and make room for the KV pool.

        Raises:
            WeightsError: The file is missing, truncated or inconsistent.
            UnsupportedModelError: Its architecture or quantisation is not implemented here.
            DeviceError: The KV pool does not fit into memory.
        """
        file = open_weights(models.resolve(deployment.weights, self._models_dir))
        config = read_config(file)
        weights = read_weights(file, config)
        tokenizer = open_tokenizer(file, config)
        shape, blocks = self.place(deployment, config, weights)
        return LoadedModel(deployment.name, shape, blocks, tokenizer)

    def place(
        self, deployment: DeploymentConfig, config: DecoderConfig, weights: DecoderWeights
    ) -> tuple[ModelShape, int]:
        """Make a deployment resident whose weights are mapped already.

        Returns:
            Its sizes, and the blocks in its KV pool.

        Raises:
            UnsupportedModelError: No kernel reads a weight's type.
            DeviceError: The KV pool does not fit into memory.
        """
        blocks = -(-deployment.kv_tokens // BLOCK_TOKENS)
        try:
            pool = KvPool.of(config, blocks)
        except MemoryError as error:
            raise DeviceError(
                f"{blocks * BLOCK_TOKENS * config.kv_bytes_per_token} bytes of KV cache",
                field="kv_tokens",
                expected="what fits into memory",
            ) from error
        shape = model_shape(config, weights)
        context_tokens = min(deployment.context_tokens, shape.context_tokens)
        shape = dataclasses.replace(shape, context_tokens=context_tokens)
        decoder = build_decoder(self._isa, config, weights, pool)
        self._resident[deployment.name] = Resident(config, shape, pool, decoder)
        return shape, blocks

    def unload(self, model: str) -> None:
        """Give weights and KV pool back. Unknown names are an error of the caller (KeyError)."""
        del self._resident[model]

    def step(self, batch: Batch) -> StepResult:
        """Compute one step; clock and partition are the device's affair, a core has neither.

        Raises:
            EngineError: The model is not resident or a chunk is wrong; then nothing was written.
        """
        start = self._clock()
        resident = self._resident_of(batch.model)
        shape, config = resident.shape, resident.config
        flat = flatten(batch.chunks, resident.pool.blocks, config.vocabulary)
        chosen = iter(self._run(resident, flat, batch))
        choices = [None if chunk.sampling is None else next(chosen) for chunk in batch.chunks]
        token_ids = tuple(None if one is None else one.token_id for one in choices)
        flops = step_flops(batch.chunks, shape, config)
        bytes_moved = step_bytes(batch.chunks, shape, config)
        latency_ms = (self._clock() - start) * 1e3
        return StepResult(token_ids, latency_ms, flops, bytes_moved, all_logprobs(choices))

    def export_blocks(self, model: str, blocks: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Contents of KV blocks, uint8 (len(blocks), bytes per block), a copy.

        Raises:
            EngineError: The model is not resident, or a block lies outside its pool.
        """
        return kv_copy.export_blocks(self._copier, self._resident_of(model).pool.content, blocks)

    def import_blocks(self, model: str, blocks: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Write what `export_blocks` gave into other blocks of the same deployment's pool.

        Raises:
            EngineError: As `export_blocks`, or `data` has another shape than these blocks, or a
                block is named twice.
        """
        content = self._resident_of(model).pool.content
        kv_copy.import_blocks(self._copier, content, blocks, data)

    def _run(self, resident: Resident, flat: FlatStep, batch: Batch) -> list[Chosen]:
        """The next token of each sampled chunk, in order."""
        logits = np.empty((len(flat.logit_rows), resident.config.vocabulary), np.float32)
        resident.decoder.forward(flat.token_ids, flat.batch, flat.logit_rows, logits)
        sampled = [chunk for chunk in batch.chunks if chunk.sampling is not None]
        return [
            sample(row, chunk.sampling, chunk.output_index)
            for row, chunk in zip(logits, sampled, strict=True)
            if chunk.sampling is not None
        ]

    def _resident_of(self, model: str) -> Resident:
        try:
            return self._resident[model]
        except KeyError:
            raise EngineError(
                f"{model!r} is not resident", field="model", expected="a loaded deployment"
            ) from None
