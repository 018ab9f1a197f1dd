"""
festina's native core: profile table, decisions, CPU kernels.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.dtypes
import numpy.typing

__all__: list[str] = [
    "ClockGovernor",
    "ClockLoad",
    "ClockPlanner",
    "ClusterView",
    "ConsolidationPlanner",
    "CpuBatch",
    "CpuDecoder",
    "CpuKernels",
    "CpuWeight",
    "CudaDriver",
    "CudaDriverError",
    "CudaKernelError",
    "CudaMemory",
    "DecoderHeads",
    "Drain",
    "GreenContexts",
    "KvCopier",
    "LocalChoice",
    "LocalChooser",
    "ModelSpec",
    "OperatingPointSolver",
    "PagedAttentionArrays",
    "PagedAttentionShape",
    "Placement",
    "Plan",
    "ProfileTable",
    "StepCost",
    "TableSpec",
    "assign",
    "build_info",
    "cpu_isas",
    "decoder_gate",
    "decoder_norm",
    "decoder_rotate",
    "kv_copy_host",
    "paged_attention_device",
    "paged_attention_host",
    "read_memory",
    "simulate",
    "sm_ids",
]

class CpuWeight:
    """
    A weight matrix as stored in a GGUF file: uint8 (rows · row bytes,) or any shape of that size; kept alive, not copied.
    """
    def __init__(
        self,
        data: numpy.ndarray,
        quantisation: typing.SupportsInt | typing.SupportsIndex,
        rows: typing.SupportsInt | typing.SupportsIndex,
        columns: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...
    @property
    def columns(self) -> int: ...
    @property
    def data(self) -> typing.Any: ...
    @property
    def quantisation(self) -> int: ...
    @property
    def rows(self) -> int: ...

class CpuBatch:
    """
    Where the tokens of a flat batch belong: int32 positions (t,), sequences (t,) an index per token, blocks (b,) the block tables of all sequences one after the other, block_offsets (s+1,) where each begins. Kept alive, not copied.
    """
    def __init__(
        self,
        positions: numpy.ndarray,
        sequences: numpy.ndarray,
        blocks: numpy.ndarray,
        block_offsets: numpy.ndarray,
    ) -> None: ...
    def check(self, pool_blocks: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Raises EngineError unless all tokens and blocks lie within the arrays and a pool of so many blocks.
        """
    @property
    def block_offsets(self) -> numpy.ndarray: ...
    @property
    def blocks(self) -> numpy.ndarray: ...
    @property
    def positions(self) -> numpy.ndarray: ...
    @property
    def sequences(self) -> numpy.ndarray: ...

class CpuKernels:
    """
    Kernels of one instruction set; "" is the best. Arrays are C-contiguous float32 or int32. One thread at a time; the GIL is released. See festina.engine.cpu.kernel_types for the contract.
    """
    def __init__(self, isa: str = "") -> None: ...
    def add(self, x: numpy.ndarray, y: numpy.ndarray) -> None: ...
    def argmax(self, x: numpy.ndarray, out: numpy.ndarray) -> None: ...
    def attention(
        self,
        q: numpy.ndarray,
        batch: CpuBatch,
        keys: numpy.ndarray,
        values: numpy.ndarray,
        scale: typing.SupportsFloat | typing.SupportsIndex,
        window: typing.SupportsInt | typing.SupportsIndex,
        out: numpy.ndarray,
    ) -> None: ...
    def embed(
        self,
        weight: CpuWeight,
        rows: numpy.ndarray,
        scale: typing.SupportsFloat | typing.SupportsIndex,
        out: numpy.ndarray,
    ) -> None: ...
    def gate(self, gate: numpy.ndarray, up: numpy.ndarray, activation: str) -> None: ...
    def matmul(
        self, x: numpy.ndarray, weight: CpuWeight, out: numpy.ndarray, accumulate: bool = False
    ) -> None: ...
    def peak_gflops(self) -> float:
        """
        Measures for some milliseconds what multiplying and adding can reach here.
        """
    def rms_norm(
        self,
        x: numpy.ndarray,
        gain: numpy.ndarray,
        eps: typing.SupportsFloat | typing.SupportsIndex,
        out: numpy.ndarray,
    ) -> None: ...
    def rope(
        self, x: numpy.ndarray, cosines: numpy.ndarray, sines: numpy.ndarray, style: str
    ) -> None: ...
    def store_kv(
        self,
        k: numpy.ndarray,
        v: numpy.ndarray,
        batch: CpuBatch,
        keys: numpy.ndarray,
        values: numpy.ndarray,
    ) -> None: ...
    @property
    def isa(self) -> str: ...

class CpuDecoder:
    """
    All layers of a Llama-class decoder in one call without the GIL. See festina.engine.cpu.kernel_types for the contract.
    """
    def __init__(
        self,
        isa: str,
        shape: typing.Any,
        weights: typing.Any,
        keys: numpy.ndarray,
        values: numpy.ndarray,
    ) -> None: ...
    def forward(
        self,
        token_ids: numpy.ndarray,
        batch: CpuBatch,
        logit_rows: numpy.ndarray,
        logits: numpy.ndarray,
    ) -> None: ...

class CudaDriverError(Exception):
    """
    What the CUDA driver refused. `fault` is absent, too_old, symbol_absent, call_failed, no_resources, capturing or device_lost (the context is unusable from then on).
    """

    fault: typing.ClassVar[str] = ""

class CudaDriver:
    """
    The CUDA driver, loaded at run time.
    """
    def __init__(self, library: str = "libcuda.so.1") -> None:
        """
        Loads and initialises it; raises CudaDriverError when it is absent, old or failing.
        """
    def device_count(self) -> int:
        """
        CUDA devices that this process sees.
        """
    def device_uuid(self, ordinal: typing.SupportsInt | typing.SupportsIndex) -> str:
        """
        Identity of a device, as NVML writes it.
        """
    def has_symbol(
        self, name: str, cuda_version: typing.SupportsInt | typing.SupportsIndex
    ) -> bool:
        """
        Whether it has the entry point `name` with the ABI of `cuda_version`.
        """
    def sm_count(self, ordinal: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        SMs of a device.
        """
    @property
    def version(self) -> int:
        """
        1000 major + 10 minor.
        """

class DecoderHeads:
    """
    How a row of queries, keys and values divides and turns.
    """
    def __init__(
        self,
        *,
        queries: typing.SupportsInt | typing.SupportsIndex,
        keys: typing.SupportsInt | typing.SupportsIndex,
        head_dim: typing.SupportsInt | typing.SupportsIndex,
        pairs: typing.SupportsInt | typing.SupportsIndex,
        halves: bool,
        eps: typing.SupportsFloat | typing.SupportsIndex,
        block_stride: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        `halves` turns (i, i + pairs), else (2i, 2i + 1); `block_stride` is in elements.
        """

class GreenContexts:
    """
    A ladder of SM partitions of one GPU. Rung 0 is the whole device, each further one two disjoint halves. Wait for all work before letting go.
    """
    def __init__(
        self,
        driver: CudaDriver,
        ordinal: typing.SupportsInt | typing.SupportsIndex,
        sms: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        streams: typing.SupportsInt | typing.SupportsIndex = 1,
        fine: bool = False,
    ) -> None:
        """
        Makes a rung for each of `sms`, the least SMs of its first half, with `streams` streams in each half. `fine` gives smaller steps and no large thread-block clusters. Raises CudaDriverError.
        """
    def streams(
        self,
        rung: typing.SupportsInt | typing.SupportsIndex,
        side: typing.SupportsInt | typing.SupportsIndex,
    ) -> list[int]:
        """
        CUstream addresses of one half. Raises IndexError.
        """
    def switch_to(self, rung: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Work on the streams of `rung` starts after all that was given to the rung before. Raises IndexError.
        """
    @property
    def current(self) -> int:
        """
        The rung that work goes to.
        """
    @property
    def granularity(self) -> tuple[int, int]:
        """
        SMs of the smallest partition, and from one size to the next (0 where there is one size).
        """
    @property
    def rungs(self) -> list[list[int]]:
        """
        SMs of each half of each rung, as the driver made them.
        """
    @property
    def sms_total(self) -> int:
        """
        SMs of the device.
        """

class CudaKernelError(RuntimeError):
    pass

class CudaMemory:
    """
    Memory that copies of a GPU reach; given back when it ends. Wait for copies first. Pinned host memory is a buffer: numpy.asarray views it.
    """
    def close(self) -> None:
        """
        Gives it back now, views of it included; raises CudaDriverError where that fails. There are no views from then on: BufferError.
        """
    def export_fd(self) -> int:
        """
        A new descriptor for another process. Raises ValueError for memory of another kind.
        """
    @property
    def address(self) -> int:
        """
        In the address space of CUDA.
        """
    @property
    def on_host(self) -> bool:
        """
        Whether it is pinned host memory.
        """
    @property
    def size(self) -> int:
        """
        Bytes.
        """

class KvCopier:
    """
    Batched copies of KV blocks that touch one GPU, asynchronous on a stream. Regions are (address, bytes); runs are uint64 (n, 3) of (src_offset, dst_offset, size). Raises CudaDriverError.
    """
    def __init__(
        self,
        driver: CudaDriver,
        ordinal: typing.SupportsInt | typing.SupportsIndex,
        image: bytes | None = None,
    ) -> None:
        """
        `image` replaces the kernels that are built in, where they are.
        """
    def allocate(self, size: typing.SupportsInt | typing.SupportsIndex) -> CudaMemory:
        """
        Device memory that `share` can share.
        """
    def allocate_pinned(self, size: typing.SupportsInt | typing.SupportsIndex) -> CudaMemory:
        """
        Pinned host memory.
        """
    def copy(
        self,
        src: tuple[
            typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
        ],
        dst: tuple[
            typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
        ],
        runs: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
        stream: typing.SupportsInt | typing.SupportsIndex,
        blocks_max: typing.SupportsInt | typing.SupportsIndex,
        engine_min: typing.SupportsInt | typing.SupportsIndex,
    ) -> tuple[int, int]:
        """
        Merges the runs; those of at least `engine_min` bytes go by the copy engines, the rest by a kernel of at most `blocks_max` blocks. Returns how many went by (kernel, engine). Raises IndexError naming a descriptor outside its region.
        """
    def copy_each(
        self,
        src: tuple[
            typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
        ],
        dst: tuple[
            typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
        ],
        runs: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
        stream: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        One cuMemcpyAsync for each run: what benchmarks compare with.
        """
    def create(self, size: typing.SupportsInt | typing.SupportsIndex) -> CudaMemory:
        """
        Device memory that a file descriptor shares; its size is rounded up.
        """
    def done(self, stream: typing.SupportsInt | typing.SupportsIndex) -> bool:
        """
        Whether all that was given to `stream` is done.
        """
    def enable_peer(self, ordinal: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Lets copies reach the memory of another GPU.
        """
    def import_fd(
        self,
        fd: typing.SupportsInt | typing.SupportsIndex,
        size: typing.SupportsInt | typing.SupportsIndex,
    ) -> CudaMemory:
        """
        What another process made by `create`, of its size; `fd` stays the caller's.
        """
    def open_shared(
        self, handle: bytes, size: typing.SupportsInt | typing.SupportsIndex
    ) -> CudaMemory:
        """
        The allocation of another process; once for each.
        """
    def pin(self, array: numpy.typing.NDArray[numpy.uint8]) -> CudaMemory:
        """
        Pins the memory of a uint8 array.
        """
    def share(self, address: typing.SupportsInt | typing.SupportsIndex) -> tuple[bytes, int, int]:
        """
        (handle, offset, size) by which another process opens the allocation of `address`.
        """
    def wait(self, stream: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Waits for all that was given to `stream`.
        """

class PagedAttentionShape:
    """
    Sizes of a paged attention of one new token each of several sequences.
    """
    def __init__(
        self,
        *,
        sequences: typing.SupportsInt | typing.SupportsIndex,
        kv_heads: typing.SupportsInt | typing.SupportsIndex,
        group: typing.SupportsInt | typing.SupportsIndex,
        head_dim: typing.SupportsInt | typing.SupportsIndex,
        table_width: typing.SupportsInt | typing.SupportsIndex,
        window: typing.SupportsInt | typing.SupportsIndex,
        splits: typing.SupportsInt | typing.SupportsIndex,
        scale: typing.SupportsFloat | typing.SupportsIndex,
        block_stride: typing.SupportsInt | typing.SupportsIndex,
        q_stride: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        `group` query heads share a KV head; a `window` of 0 sees all keys; strides are in elements. Raises ValueError naming a size that no kernel has.
        """
    @property
    def scratch(self) -> int:
        """
        Floats of scratch memory that it needs.
        """

class PagedAttentionArrays:
    """
    Addresses of its arrays: of all layers' one pool, offset to the layer.
    """
    def __init__(
        self,
        *,
        q: typing.SupportsInt | typing.SupportsIndex,
        keys: typing.SupportsInt | typing.SupportsIndex,
        values: typing.SupportsInt | typing.SupportsIndex,
        tables: typing.SupportsInt | typing.SupportsIndex,
        lengths: typing.SupportsInt | typing.SupportsIndex,
        scratch: typing.SupportsInt | typing.SupportsIndex,
        out: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        Layouts are those of csrc/cuda/paged_attention/types.hpp.
        """

class ModelSpec:
    """
    One model of a table that is being made.
    """

    name: str
    def __init__(self) -> None: ...
    @property
    def context_tokens(self) -> int: ...
    @context_tokens.setter
    def context_tokens(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def kv_bytes_per_token(self) -> int: ...
    @kv_bytes_per_token.setter
    def kv_bytes_per_token(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def load_ms(self) -> float: ...
    @load_ms.setter
    def load_ms(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def wake_ms(self) -> float: ...
    @wake_ms.setter
    def wake_ms(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def weight_bytes(self) -> int: ...
    @weight_bytes.setter
    def weight_bytes(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def work0(self) -> typing.Annotated[list[list[float]], "FixedSize(2)"]:
        """
        Knots per phase.
        """
    @work0.setter
    def work0(
        self,
        arg0: typing.Annotated[
            collections.abc.Sequence[
                collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]
            ],
            "FixedSize(2)",
        ],
    ) -> None: ...
    @property
    def work1(self) -> typing.Annotated[list[list[float]], "FixedSize(2)"]:
        """
        Knots per phase.
        """
    @work1.setter
    def work1(
        self,
        arg0: typing.Annotated[
            collections.abc.Sequence[
                collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]
            ],
            "FixedSize(2)",
        ],
    ) -> None: ...

class TableSpec:
    """
    What a profile table is made from.
    """

    device: str
    def __init__(self) -> None: ...
    def set_cells(self, cells: numpy.ndarray) -> None:
        """
        Cells of all models in order, prefill then decode, each [work0][work1][rung][clock].
        """
    @property
    def clocks_mhz(self) -> list[int]: ...
    @clocks_mhz.setter
    def clocks_mhz(
        self, arg0: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]
    ) -> None: ...
    @property
    def idle_w(self) -> list[float]: ...
    @idle_w.setter
    def idle_w(
        self, arg0: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]
    ) -> None: ...
    @property
    def memory_bytes(self) -> int: ...
    @memory_bytes.setter
    def memory_bytes(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def models(self) -> list[ModelSpec]: ...
    @models.setter
    def models(self, arg0: collections.abc.Sequence[ModelSpec]) -> None: ...
    @property
    def parked_w(self) -> float: ...
    @parked_w.setter
    def parked_w(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def power_cap_w(self) -> float: ...
    @power_cap_w.setter
    def power_cap_w(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def sms(self) -> list[int]: ...
    @sms.setter
    def sms(
        self, arg0: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]
    ) -> None: ...
    @property
    def sms_total(self) -> int: ...
    @sms_total.setter
    def sms_total(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...

class ProfileTable:
    """
    The native table behind festina.control.profile.ProfileTable.
    """
    @staticmethod
    def attach(name: str) -> ProfileTable: ...
    @staticmethod
    def take_over(name: str) -> ProfileTable: ...
    def __init__(self, spec: TableSpec) -> None: ...
    def cells(
        self,
        model: typing.SupportsInt | typing.SupportsIndex,
        phase: typing.SupportsInt | typing.SupportsIndex,
    ) -> numpy.ndarray: ...
    def cheapest(
        self,
        model: typing.SupportsInt | typing.SupportsIndex,
        phase: typing.SupportsInt | typing.SupportsIndex,
        work0: typing.SupportsFloat | typing.SupportsIndex,
        work1: typing.SupportsFloat | typing.SupportsIndex,
        deadline_ms: typing.SupportsFloat | typing.SupportsIndex,
        idle_share: typing.SupportsFloat | typing.SupportsIndex,
    ) -> tuple[int, int, float, float]: ...
    def correct(
        self,
        model: typing.SupportsInt | typing.SupportsIndex,
        phase: typing.SupportsInt | typing.SupportsIndex,
        rung: typing.SupportsInt | typing.SupportsIndex,
        clock: typing.SupportsInt | typing.SupportsIndex,
        work0: typing.SupportsFloat | typing.SupportsIndex,
        work1: typing.SupportsFloat | typing.SupportsIndex,
        latency_ms: typing.SupportsFloat | typing.SupportsIndex,
        power_w: typing.SupportsFloat | typing.SupportsIndex | None,
    ) -> None: ...
    def costs(
        self,
        model: typing.SupportsInt | typing.SupportsIndex,
        phase: typing.SupportsInt | typing.SupportsIndex,
    ) -> numpy.ndarray: ...
    def describe(self) -> dict[str, typing.Any]: ...
    def describe_model(
        self, model: typing.SupportsInt | typing.SupportsIndex
    ) -> dict[str, typing.Any]: ...
    @typing.overload
    def estimate(
        self,
        model: int,
        phase: int,
        rung: typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
        clock: typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
        work0: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
        work1: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    ) -> numpy.ndarray: ...
    @typing.overload
    def estimate(
        self,
        model: typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
        phase: typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
        rung: typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
        clock: typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
        work0: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
        work1: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    ) -> numpy.ndarray: ...
    def first_cell(
        self,
        model: typing.SupportsInt | typing.SupportsIndex,
        phase: typing.SupportsInt | typing.SupportsIndex,
    ) -> int: ...
    def knots(
        self,
        model: typing.SupportsInt | typing.SupportsIndex,
        phase: typing.SupportsInt | typing.SupportsIndex,
    ) -> tuple[list[float], list[float]]: ...
    def least_rung(
        self,
        model: typing.SupportsInt | typing.SupportsIndex,
        phase: typing.SupportsInt | typing.SupportsIndex,
        clock: typing.SupportsInt | typing.SupportsIndex,
        work0: typing.SupportsFloat | typing.SupportsIndex,
        work1: typing.SupportsFloat | typing.SupportsIndex,
        deadline_ms: typing.SupportsFloat | typing.SupportsIndex,
    ) -> int: ...
    def lookup(
        self, cell: typing.Annotated[numpy.typing.ArrayLike, numpy.int64]
    ) -> numpy.ndarray: ...
    def publish(self, name: str) -> ProfileTable: ...
    def unlink(self) -> None: ...
    @property
    def clocks_mhz(self) -> numpy.typing.NDArray[numpy.uint32]: ...
    @property
    def epoch(self) -> int: ...
    @property
    def idle_w(self) -> numpy.typing.NDArray[numpy.float32]: ...
    @property
    def models(self) -> int: ...
    @property
    def sms(self) -> numpy.typing.NDArray[numpy.uint32]: ...
    @property
    def updates(self) -> int: ...
    @property
    def writable(self) -> bool: ...

class Placement:
    """
    Where a request should run.
    """
    @property
    def action(self) -> str: ...
    @property
    def clock_mhz(self) -> int: ...
    @property
    def energy_j(self) -> float: ...
    @property
    def on_time(self) -> bool: ...
    @property
    def slot(self) -> int: ...
    @property
    def tbt_ms(self) -> float: ...
    @property
    def ttft_ms(self) -> float: ...

class ClusterView:
    """
    The native view behind festina.control.placement.ClusterView.
    """
    def __init__(
        self, tables: list[tuple[str, ProfileTable]], settings: dict[str, typing.Any]
    ) -> None: ...
    def add_gpu(
        self,
        name: str,
        device_kind: str,
        sms_total: typing.SupportsInt | typing.SupportsIndex,
        clocks_mhz: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        memory_bytes: typing.SupportsFloat | typing.SupportsIndex,
        models: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    ) -> int: ...
    def add_model(
        self,
        name: str,
        profile_model: str,
        ttft_ms: typing.SupportsFloat | typing.SupportsIndex,
        tbt_ms: typing.SupportsFloat | typing.SupportsIndex,
        context_tokens: typing.SupportsInt | typing.SupportsIndex,
    ) -> int: ...
    def expire(self, now_ms: typing.SupportsFloat | typing.SupportsIndex) -> int: ...
    def place(
        self,
        model: typing.SupportsInt | typing.SupportsIndex,
        input_tokens: typing.SupportsInt | typing.SupportsIndex,
        max_tokens: typing.SupportsInt | typing.SupportsIndex,
        ttft_ms: typing.SupportsFloat | typing.SupportsIndex,
        tbt_ms: typing.SupportsFloat | typing.SupportsIndex,
        exclude: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    ) -> Placement: ...
    def remove_gpu(self, slot: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def reserve(
        self,
        slot: typing.SupportsInt | typing.SupportsIndex,
        ticket: typing.SupportsInt | typing.SupportsIndex,
        model: typing.SupportsInt | typing.SupportsIndex,
        input_tokens: typing.SupportsInt | typing.SupportsIndex,
        max_tokens: typing.SupportsInt | typing.SupportsIndex,
        now_ms: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None: ...
    def reserved(self, slot: typing.SupportsInt | typing.SupportsIndex) -> int: ...
    def update(
        self, slot: typing.SupportsInt | typing.SupportsIndex, summary: typing.Any
    ) -> None: ...

class Plan:
    """
    What runs next on one GPU, on how many SMs and at which clock.
    """
    @property
    def clock_mhz(self) -> int: ...
    @property
    def energy_j(self) -> float: ...
    @property
    def latency_ms(self) -> numpy.typing.NDArray[numpy.float32]: ...
    @property
    def on_time(self) -> bool: ...
    @property
    def power_w(self) -> float: ...
    @property
    def rung(self) -> numpy.typing.NDArray[numpy.int32]: ...
    @property
    def span_ms(self) -> float: ...

class OperatingPointSolver:
    """
    The native solver behind festina.control.operating_point.Solver.
    """
    def __init__(self, table: typing.Any, settings: dict[str, typing.Any]) -> None: ...
    def solve(
        self,
        tasks: numpy.ndarray,
        clock_mhz: typing.SupportsInt | typing.SupportsIndex,
        sms: typing.SupportsInt | typing.SupportsIndex,
        memory_free_bytes: typing.SupportsFloat | typing.SupportsIndex,
        since_switch_ms: typing.SupportsFloat | typing.SupportsIndex,
        power_budget_w: typing.SupportsFloat | typing.SupportsIndex,
    ) -> Plan: ...

class ClockLoad:
    """
    What the models of a GPU ask of it.
    """
    def __init__(self) -> None: ...
    def add_model(
        self,
        model: typing.SupportsInt | typing.SupportsIndex,
        running: typing.SupportsInt | typing.SupportsIndex,
        context_mean: typing.SupportsFloat | typing.SupportsIndex,
        tbt_ms: typing.SupportsFloat | typing.SupportsIndex,
        due_ms: typing.SupportsFloat | typing.SupportsIndex,
        busy: bool,
    ) -> None: ...
    def add_waiting(
        self,
        number: typing.SupportsInt | typing.SupportsIndex,
        tokens: typing.SupportsInt | typing.SupportsIndex,
        cached: typing.SupportsInt | typing.SupportsIndex,
        since_ms: typing.SupportsFloat | typing.SupportsIndex,
        objective_ms: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None: ...
    def clear(self) -> None: ...
    def set_prompts(
        self,
        per_s: typing.SupportsFloat | typing.SupportsIndex,
        tokens: typing.SupportsFloat | typing.SupportsIndex,
        hardest_tokens: typing.SupportsInt | typing.SupportsIndex,
        hardest_cached: typing.SupportsInt | typing.SupportsIndex,
        hardest_ttft_ms: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None: ...

class ClockPlanner:
    """
    The native rule behind festina.control.clock.ClockPlanner.
    """
    def __init__(
        self,
        table: typing.Any,
        rung: typing.SupportsInt | typing.SupportsIndex,
        switch_ms: typing.SupportsFloat | typing.SupportsIndex,
        settings: dict[str, typing.Any],
    ) -> None: ...
    def could_serve(
        self,
        load: ClockLoad,
        model: typing.SupportsInt | typing.SupportsIndex,
        tokens: typing.SupportsInt | typing.SupportsIndex,
        cached: typing.SupportsInt | typing.SupportsIndex,
        ttft_ms: typing.SupportsFloat | typing.SupportsIndex,
        ready_ms: typing.SupportsFloat | typing.SupportsIndex,
        clock_target: typing.SupportsInt | typing.SupportsIndex,
    ) -> bool: ...
    def plan(
        self,
        load: ClockLoad,
        clock: typing.SupportsInt | typing.SupportsIndex,
        now_ms: typing.SupportsFloat | typing.SupportsIndex,
    ) -> tuple[int, float, bool]:
        """
        Clock, mean power in W, and whether everything would be in time.
        """

class ClockGovernor(ClockPlanner):
    """
    The native rule behind festina.control.clock.ClockGovernor.
    """
    def __init__(
        self,
        table: typing.Any,
        rung: typing.SupportsInt | typing.SupportsIndex,
        switch_ms: typing.SupportsFloat | typing.SupportsIndex,
        settings: dict[str, typing.Any],
    ) -> None: ...
    def arrived(
        self,
        model: typing.SupportsInt | typing.SupportsIndex,
        tokens: typing.SupportsInt | typing.SupportsIndex,
        cached: typing.SupportsInt | typing.SupportsIndex,
        ttft_ms: typing.SupportsFloat | typing.SupportsIndex,
        now_ms: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None: ...
    def decide(
        self,
        load: ClockLoad,
        clock: typing.SupportsInt | typing.SupportsIndex,
        target: typing.SupportsInt | typing.SupportsIndex,
        now_ms: typing.SupportsFloat | typing.SupportsIndex,
    ) -> int: ...
    def due(self, now_ms: typing.SupportsFloat | typing.SupportsIndex) -> bool: ...

class StepCost:
    """
    What steps of one model cost at one operating point.
    """
    @staticmethod
    def linear(
        fixed_ms: typing.SupportsFloat | typing.SupportsIndex,
        token_ms: typing.SupportsFloat | typing.SupportsIndex,
        decode_ms: typing.SupportsFloat | typing.SupportsIndex,
        context_token_ms: typing.SupportsFloat | typing.SupportsIndex,
        spread: typing.SupportsFloat | typing.SupportsIndex,
    ) -> StepCost:
        """
        Linear in the work, for a device without a profile.
        """
    @staticmethod
    def profiled(
        table: typing.Any,
        model: typing.SupportsInt | typing.SupportsIndex,
        rung: typing.SupportsInt | typing.SupportsIndex,
        clock: typing.SupportsInt | typing.SupportsIndex,
    ) -> StepCost:
        """
        By the table, with its corrections.
        """
    def latency_ms(
        self,
        decodes: typing.SupportsInt | typing.SupportsIndex,
        context_mean: typing.SupportsFloat | typing.SupportsIndex,
        tokens: typing.SupportsInt | typing.SupportsIndex,
        cached_mean: typing.SupportsFloat | typing.SupportsIndex,
    ) -> float: ...
    def spread(
        self,
        decodes: typing.SupportsInt | typing.SupportsIndex,
        context_mean: typing.SupportsFloat | typing.SupportsIndex,
        tokens: typing.SupportsInt | typing.SupportsIndex,
        cached_mean: typing.SupportsFloat | typing.SupportsIndex,
    ) -> float:
        """
        Relative error of the latency.
        """

class LocalChoice:
    """
    What one device should do now.
    """
    @property
    def chunks(self) -> list[tuple[int, int]]: ...
    @property
    def decodes(self) -> list[int]: ...
    @property
    def lane(self) -> int: ...
    @property
    def wait_ms(self) -> float: ...

class LocalChooser:
    """
    The native rule behind festina.control.local_festina.
    """
    def __init__(self, settings: dict[str, typing.Any]) -> None: ...
    def choose(
        self,
        costs: list[StepCost],
        lanes: list[float],
        decodes: list[float],
        prompts: list[float],
        slots: typing.SupportsInt | typing.SupportsIndex,
    ) -> LocalChoice: ...

class Drain:
    """
    A GPU to be emptied and parked, and why.
    """
    @property
    def gain_j(self) -> float: ...
    @property
    def gpu(self) -> int: ...
    @property
    def moves(self) -> list[tuple[int, int]]: ...
    @property
    def moves_j(self) -> float: ...
    @property
    def risk_j(self) -> float: ...
    @property
    def saved_w(self) -> float: ...
    @property
    def valley_ms(self) -> float: ...
    @property
    def wake_j(self) -> float: ...

class ConsolidationPlanner:
    """
    The native rules behind festina.control.consolidation.
    """

    demand_dtype: typing.ClassVar[numpy.dtypes.VoidDType]
    gpu_dtype: typing.ClassVar[numpy.dtypes.VoidDType]
    resident_dtype: typing.ClassVar[numpy.dtypes.VoidDType]
    def __init__(
        self,
        tables: list[typing.Any],
        models: collections.abc.Sequence[tuple[str, typing.SupportsFloat | typing.SupportsIndex]],
        settings: dict[str, typing.Any],
    ) -> None: ...
    def drains(
        self,
        gpus: numpy.ndarray,
        residents: numpy.ndarray,
        growth_per_ms: typing.SupportsFloat | typing.SupportsIndex,
    ) -> list[Drain]: ...
    def paper(
        self,
        gpus: numpy.ndarray,
        residents: numpy.ndarray,
        demands: numpy.ndarray,
        active: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        memory_bytes: typing.SupportsFloat | typing.SupportsIndex,
    ) -> tuple[list[tuple[int, int]], list[int]] | None: ...
    def wake(self, gpus: numpy.ndarray, residents: numpy.ndarray) -> tuple[int, int] | None: ...

def assign(
    costs: typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
    room: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
) -> list[int]:
    """
    The column of each row so that the costs add up to the least and no column gets more rows than it has room for.
    """

def build_info() -> dict[str, typing.Any]:
    """
    What this module was built with.
    """

def cpu_isas() -> list[str]:
    """
    Instruction sets this machine has kernels for, best first.
    """

def decoder_gate(
    bf16: bool,
    rows: typing.SupportsInt | typing.SupportsIndex,
    width: typing.SupportsInt | typing.SupportsIndex,
    gelu: bool,
    gate_up: typing.SupportsInt | typing.SupportsIndex,
    out: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex | None,
) -> None:
    """
    out = activation(gate) · up; see decoder_norm.
    """

def decoder_norm(
    bf16: bool,
    rows: typing.SupportsInt | typing.SupportsIndex,
    width: typing.SupportsInt | typing.SupportsIndex,
    eps: typing.SupportsFloat | typing.SupportsIndex,
    x: typing.SupportsInt | typing.SupportsIndex,
    update: typing.SupportsInt | typing.SupportsIndex,
    gain: typing.SupportsInt | typing.SupportsIndex,
    out: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex | None,
) -> None:
    """
    out = norm(x), after x += update unless that is 0; all arrays by address. On a stream, or as host code where it is None. Raises ValueError, CudaKernelError.
    """

def decoder_rotate(
    bf16: bool,
    heads: DecoderHeads,
    rows: typing.SupportsInt | typing.SupportsIndex,
    qkv: typing.SupportsInt | typing.SupportsIndex,
    cosines: typing.SupportsInt | typing.SupportsIndex,
    sines: typing.SupportsInt | typing.SupportsIndex,
    q_gain: typing.SupportsInt | typing.SupportsIndex,
    k_gain: typing.SupportsInt | typing.SupportsIndex,
    slots: typing.SupportsInt | typing.SupportsIndex,
    keys: typing.SupportsInt | typing.SupportsIndex,
    values: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex | None,
) -> None:
    """
    Norms (unless gains are 0) and turns queries and keys, caches keys and values; see csrc/cuda/decoder_ops/types.hpp and decoder_norm.
    """

def kv_copy_host(
    src: numpy.typing.NDArray[numpy.uint8],
    dst: numpy.typing.NDArray[numpy.uint8],
    runs: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
) -> None:
    """
    Copy runs (n, 3) of (src_offset, dst_offset, size) in bytes between two uint8 pools that do not overlap. Raises IndexError naming a descriptor outside its pool.
    """

def paged_attention_device(
    shape: PagedAttentionShape,
    arrays: PagedAttentionArrays,
    bf16: bool,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    The same on device memory, asynchronous on a stream. Raises CudaKernelError.
    """

def paged_attention_host(
    shape: PagedAttentionShape, arrays: PagedAttentionArrays, bf16: bool
) -> None:
    """
    The kernels' bodies as host code, on host memory; float32, or `bf16`.
    """

def read_memory(
    address: typing.SupportsInt | typing.SupportsIndex,
    size: typing.SupportsInt | typing.SupportsIndex,
    folded: typing.SupportsInt | typing.SupportsIndex,
    blocks: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex | None,
) -> None:
    """
    Reads `size` bytes at `address` and folds them, as uint32, into the one at `folded` by exclusive or; writes nothing else. On a stream, or as host code where it is None. Raises ValueError, CudaKernelError.
    """

def simulate(
    belief: ProfileTable,
    truth: ProfileTable,
    device: dict[str, float],
    setup: dict[str, float],
    deployments: list[dict[str, typing.Any]],
    columns: dict[str, typing.Any],
    policy: str,
    options: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex],
    progress: collections.abc.Callable[[float], bool],
) -> dict[str, typing.Any]:
    """
    Simulates one policy. `columns` are those of festina.simulator.workload.Workload.
    """

def sm_ids(
    ordinal: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    blocks: typing.SupportsInt | typing.SupportsIndex,
) -> list[int]:
    """
    SM on which each block of a probe kernel ran on `stream`.
    """
