"""From a GPU and the ladder of its SM partitions to an engine."""

from __future__ import annotations

from pathlib import Path

import torch

from festina import _core
from festina.engine import models
from festina.engine.cuda.engine import CudaEngine
from festina.engine.cuda.extras import require_kernels
from festina.engine.cuda.failures import typed_opening
from festina.engine.cuda.lanes import Ladder, Lanes, copy_stream
from festina.engine.cuda.options import EngineOptions
from festina.engine.kv_copy_cuda import CudaKvCopy
from festina.errors import DeviceError

COPY_BLOCKS_PER_SM = 2
"""Thread blocks that copies may have at once for each SM of their partition."""


def engine_on_gpu(
    ordinal: int,
    ladder: Ladder,
    models_dir: Path | None = None,
    options: EngineOptions | None = None,
) -> CudaEngine:
    """An engine on the GPU that CUDA calls `ordinal`, with a lane for each partition of `ladder`.

    Raises:
        UnsupportedEngineError: festina was built without its CUDA kernels.
        DeviceError: PyTorch cannot use the GPU, or the ladder has no streams for copies.
        ConfigError: The user's cache folder cannot be written.
    """
    require_kernels()
    with typed_opening():
        if not torch.cuda.is_available():
            raise DeviceError(
                f"PyTorch {torch.__version__} finds no usable GPU",
                field="gpus",
                expected=f"a driver for CUDA {torch.version.cuda}",
            )
        device = torch.device("cuda", ordinal)
        torch.cuda.set_device(device)
        torch.backends.cuda.preferred_blas_library("cublas")  # see blas.py
        lanes = Lanes.on_gpu(ladder, ordinal)
    return CudaEngine(
        device,
        lanes,
        options,
        copier=copier_of(_core.CudaDriver(), ordinal, ladder, models.default_cache_dir().parent),
        models_dir=models_dir,
        free_bytes=lambda: _free_bytes(device),
    )


def copier_of(
    driver: _core.CudaDriver,
    ordinal: int,
    ladder: Ladder,
    folder: Path,
    copier: _core.KvCopier | None = None,
) -> CudaKvCopy:
    """What copies KV blocks on the ladder's smallest partition, and so never on more SMs than that.

    Args:
        driver: The driver.
        ordinal: CUDA ordinal of the device.
        ladder: Its partitions. The engine's lanes keep it.
        folder: Where the device's crossover is kept.
        copier: Made for that device; None makes one.

    Raises:
        DeviceError: The device refused, or the ladder has no streams for copies.
        ConfigError: The folder cannot be written.
    """
    partition, stream = copy_stream(ladder)
    blocks_max = COPY_BLOCKS_PER_SM * partition.sms
    return CudaKvCopy.open(driver, ordinal, stream, folder, blocks_max=blocks_max, copier=copier)


def _free_bytes(device: torch.device) -> int:
    """Memory that nobody uses, after PyTorch has given back what it holds without using it.

    Its own count of that would not do: what graphs left in their pools is for them alone.
    """
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])
