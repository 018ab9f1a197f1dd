"""What PyTorch, our kernels and our copies report of a device leaves the engine as festina's."""

import numpy as np
import pytest
from engine_driver import MODEL, runs_of, step
from tiny_models import gguf_file

from festina import _core
from festina.config import DeploymentConfig
from festina.engine.kv_copy import HostKvCopy
from festina.errors import DeviceError, DeviceLostError, EngineError, EngineLostError

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra `gpu`)")

from festina.engine.cuda.decoder import Decoder  # noqa: E402
from festina.engine.cuda.engine import CudaEngine  # noqa: E402
from festina.engine.cuda.failures import typed_opening  # noqa: E402
from festina.engine.cuda.graph_plan import GraphRules  # noqa: E402
from festina.engine.cuda.lanes import Lanes  # noqa: E402
from festina.engine.cuda.options import EngineOptions  # noqa: E402
from festina.engine.cuda.pool import KvPool  # noqa: E402

MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    _core.CudaKernelError("norm: cudaErrorMemoryAllocation"),
]
LOST = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    _core.CudaKernelError("norm: cudaErrorLaunchFailure"),
    DeviceLostError("cuStreamSynchronize failed with 700", field="kv_copy"),
]
OURS = [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), NotImplementedError("view")]


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.fixture
def deployment(tmp_path):
    return DeploymentConfig(name=MODEL, weights=str(gguf_file(tmp_path, "llama")), kv_tokens=640)


class BrokenCopy(HostKvCopy):
    """Copies fail with `error`."""

    def __init__(self, error):
        self.to_host = self.from_host = raising(error)


def engine_of(deployment=None, copier=None):
    options = EngineOptions(torch.float32, "torch", GraphRules(buckets=(1,)))
    engine = CudaEngine(torch.device("cpu"), Lanes.on_cpu(), options, copier=copier)
    if deployment is not None:
        engine.load(deployment)
    return engine


def caught_by_step(deployment, monkeypatch, error):
    engine = engine_of(deployment)
    (run,) = runs_of([[5, 17, 99]], 5)
    monkeypatch.setattr(Decoder, "hidden", raising(error))
    with pytest.raises(Exception, match=r".") as caught:
        step(engine, [run.chunk(9)])
    return caught.value


@pytest.mark.parametrize("error", MEMORY, ids=str)
def test_a_step_without_memory_fails_and_the_engine_goes_on(deployment, monkeypatch, error):
    assert type(caught_by_step(deployment, monkeypatch, error)) is EngineError


@pytest.mark.parametrize("error", LOST, ids=str)
def test_after_a_failed_kernel_the_engine_is_lost(deployment, monkeypatch, error):
    found = caught_by_step(deployment, monkeypatch, error)
    assert isinstance(found, EngineLostError)
    assert str(error) in str(found)


@pytest.mark.parametrize("error", OURS, ids=str)
def test_what_tells_of_no_device_is_not_taken_for_its_failure(deployment, monkeypatch, error):
    assert caught_by_step(deployment, monkeypatch, error) is error


@pytest.mark.parametrize("error", MEMORY, ids=str)
def test_a_model_for_which_memory_does_not_last_is_refused(deployment, monkeypatch, error):
    monkeypatch.setattr(KvPool, "__init__", raising(error))
    with pytest.raises(DeviceError) as caught:
        engine_of(deployment)
    assert caught.value.field == "kv_tokens"


@pytest.mark.parametrize("error", MEMORY, ids=str)
def test_a_model_whose_graphs_do_not_fit_is_refused_and_not_resident(
    deployment, monkeypatch, error
):
    engine = engine_of()
    monkeypatch.setattr(Decoder, "hidden", raising(error))
    with pytest.raises(DeviceError):
        engine.load(deployment)
    with pytest.raises(EngineError, match="not resident"):
        engine.export_blocks(MODEL, np.array([0], np.int32))


@pytest.mark.parametrize("error", LOST, ids=str)
def test_a_load_on_a_failed_device_loses_the_engine(deployment, monkeypatch, error):
    monkeypatch.setattr(KvPool, "__init__", raising(error))
    with pytest.raises(EngineLostError):
        engine_of(deployment)


@pytest.mark.parametrize("error", LOST, ids=str)
def test_copies_on_a_failed_device_lose_the_engine(deployment, error):
    engine = engine_of(deployment, BrokenCopy(error))
    blocks, data = np.array([1], np.int32), None
    with pytest.raises(EngineLostError):
        engine.export_blocks(MODEL, blocks)
    data = engine_of(deployment).export_blocks(MODEL, blocks)
    with pytest.raises(EngineLostError):
        engine.import_blocks(MODEL, blocks, data)


def test_copies_that_the_device_refuses_leave_the_engine(deployment):
    error = DeviceError("cuMemHostAlloc failed with 2", field="kv_copy")
    engine = engine_of(deployment, BrokenCopy(error))
    with pytest.raises(DeviceError) as caught:
        engine.export_blocks(MODEL, np.array([1], np.int32))
    assert caught.value is error


@pytest.mark.parametrize(
    ("errors", "kind"), [(MEMORY, DeviceError), (LOST, DeviceLostError)], ids=["memory", "lost"]
)
def test_an_engine_that_does_not_start_fails_with_its_device(errors, kind):
    for error in errors:
        with pytest.raises(kind) as caught, typed_opening():
            raise error
        assert type(caught.value) is kind
