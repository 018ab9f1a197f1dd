"""Constants of the analytic GPU, each with its source and error.

Marks in the comments:
    [M] measured and published; [F] fitted to published measurements, held-out error given;
    [P] a figure quoted from a paper; [A] an assumption of ours, nothing measured behind it.

Sources:
    muxserve   hao-ai-lab/MuxServe, llama.json: A100-80GB, LLaMA-7B, SM share 30-100 % under MPS.
    vidur      microsoft/vidur, GEMM profiles of Llama-2-7B on A100 and H100, clocks not locked.
    roofline   te42kyfo/gpu-benches, power against arithmetic intensity, H200 and A100-40GB.
    afzal      AyeshaAfzal91/GPU-Energy-Sweetspot (arXiv 2607.00819), H200 at locked clocks.
    energyllm  qweewqq/EnergyLLM, Llama-3.1-8B decode on A100-40GB at 15 locked clocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from festina.errors import DeviceError


@dataclass(frozen=True, slots=True)
class PrefillFit:
    """Constants of prefill latency.

    Attributes:
        flops_per_s: Dense bf16 rate of the whole model at the top clock, all SMs.
        bytes_per_s: Rate at which weights are read.
        sm_exponent: Compute scales with (SM share)^this.
        bandwidth_share: SM share that gets 63 % of the bandwidth (s0).
        norm: p of the p-norm that joins compute and memory time.
        step_ms: Fixed time of a step.
        sequence_ms: Added per sequence in the step.
    """

    flops_per_s: float
    bytes_per_s: float
    sm_exponent: float
    bandwidth_share: float
    norm: float
    step_ms: float
    sequence_ms: float


@dataclass(frozen=True, slots=True)
class DecodeFit:
    """Constants of decode latency.

    Attributes:
        flops_per_s: As in `PrefillFit`.
        bytes_per_s: As in `PrefillFit`.
        kv_bytes_per_s: Rate at which the KV cache is read.
        sm_exponent: As in `PrefillFit`.
        bandwidth_share: As in `PrefillFit`.
        norm: As in `PrefillFit`.
        sequence_ms: Added per sequence in the batch.
        clock_c0: Clock effect G: c = c0 + c1·log2(batch).
        clock_c1: See `clock_c0`.
        clock_q: Sharpness q of the clock effect.
    """

    flops_per_s: float
    bytes_per_s: float
    kv_bytes_per_s: float
    sm_exponent: float
    bandwidth_share: float
    norm: float
    sequence_ms: float
    clock_c0: float
    clock_c1: float
    clock_q: float


@dataclass(frozen=True, slots=True)
class PowerFit:
    """Constants of power.

    Attributes:
        idle_base_w: Idle power that holds a context is idle_base_w + idle_slope_w·f/GHz.
        idle_slope_w: See `idle_base_w`.
        context_w: What a CUDA context adds to bare idle at the top clock.
        cap_w: Power cap; the clock sinks until it is met.
        knee_ghz: End of the minimum-voltage region.
        slope_low: Voltage slope per GHz above the knee where power stays below `slope_low_w`.
        slope_high: The same where power would exceed `slope_high_w`; linear blend between.
        slope_low_w: See `slope_low`.
        slope_high_w: See `slope_high`.
        flop_j: Joules per bf16 tensor FLOP at minimum voltage.
        memory_j: Joules per byte that do not depend on the clock (HBM).
        chip_j: Joules per byte at minimum voltage (caches and wires).
    """

    idle_base_w: float
    idle_slope_w: float
    context_w: float
    cap_w: float
    knee_ghz: float
    slope_low: float
    slope_high: float
    slope_low_w: float
    slope_high_w: float
    flop_j: float
    memory_j: float
    chip_j: float


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One kind of GPU.

    Attributes:
        kind: Name under which profiles are filed.
        aliases: Short names that people type.
        sms_total: SMs.
        sms_ladder: SM counts of the partitions, ascending; the last is the whole device.
        clocks_mhz: SM clocks that festina uses, ascending.
        memory_bytes: Device memory for weights and KV cache.
        prefill: Prefill latency.
        decode: Decode latency.
        power: Power.
        load_bytes_per_s: Pinned host memory to device.
        load_fixed_ms: Fixed part of a load.
        wake_ms: Creating a context on a parked device.
        clock_switch_ms: From asking for a clock to running at it.
    """

    kind: str
    aliases: tuple[str, ...]
    sms_total: int
    sms_ladder: tuple[int, ...]
    clocks_mhz: tuple[int, ...]
    memory_bytes: int
    prefill: PrefillFit
    decode: DecodeFit
    power: PowerFit
    load_bytes_per_s: float
    load_fixed_ms: float
    wake_ms: float
    clock_switch_ms: float

    @property
    def clock_max_mhz(self) -> int:
        """The top clock, at which the latency constants hold."""
        return self.clocks_mhz[-1]


_GIB = 1024**3
_SWITCH_MS = 50.0  # [A] as EnergyLLM assumes; arXiv 2502.20075 found a wide spread, up to ~100s.
_WAKE_MS = 1500.0  # [A] context, libraries and graphs.
_LOAD_FIXED_MS = 100.0  # [A]

_A100 = GpuSpec(
    kind="A100-SXM4-80GB",
    aliases=("a100",),
    sms_total=108,
    sms_ladder=(16, 32, 48, 64, 80, 96, 108),
    # Range 210-1410 in steps of 15 [M]; the knee is at 1050-1100 MHz.
    clocks_mhz=(210, 705, 900, 1005, 1095, 1200, 1305, 1410),
    memory_bytes=78 * _GIB,
    # [F] muxserve, SM shares 40 and 70 % held out: MAPE 4.3 % (n=86, p90 13 %).
    prefill=PrefillFit(
        flops_per_s=189e12,
        bytes_per_s=1.35e12,
        sm_exponent=0.84,
        bandwidth_share=0.08,
        norm=4.0,
        step_ms=3.8,
        sequence_ms=0.072,
    ),
    # [F] muxserve, the same held out: MAPE 3.4 % (n=88, p90 7.5 %), context ≤ 512.
    # Clock effect [F] energyllm, 4 of 15 clocks held out: MAPE 1.9 % (n=27).
    decode=DecodeFit(
        flops_per_s=167e12,
        bytes_per_s=1.18e12,
        kv_bytes_per_s=1.39e12,
        sm_exponent=0.76,
        bandwidth_share=0.24,
        norm=3.5,
        sequence_ms=0.026,
        clock_c0=0.577,
        clock_c1=0.017,
        clock_q=5.65,
    ),
    # Idle: 68 W at 1410 [F] roofline; slope [A], so that 210 MHz is no less than bare idle.
    # Knee and slope [F] energyllm (90 % CI 1.03-1.13 GHz, .97-1.59 /GHz), power MAPE 4.6 %.
    # Bytes: 117.5 pJ at 1410 MHz [F] roofline (2.6 % held out), all of it on the chip's voltage,
    # because the decode fit leaves nothing that does not move with f·v².
    # FLOPs [A]: dense GEMM at 220 TFLOP/s reaches the 400 W cap at 1410 MHz.
    power=PowerFit(
        idle_base_w=39.0,
        idle_slope_w=20.6,
        context_w=26.0,
        cap_w=400.0,
        knee_ghz=1.074,
        slope_low=1.216,
        slope_high=1.216,
        slope_low_w=0.0,
        slope_high_w=1.0,
        flop_j=0.69e-12,
        memory_j=0.0,
        chip_j=59e-12,
    ),
    load_bytes_per_s=24e9,  # [A] PCIe 4 x16 from pinned memory
    load_fixed_ms=_LOAD_FIXED_MS,
    wake_ms=_WAKE_MS,
    clock_switch_ms=_SWITCH_MS,
)

# H100: vidur gives GEMM rates of both cards (H100 801 TFLOP/s and 2.68 TB/s, 5.2 % held out; A100
# 220 and 1.55, 3.8 %). Whole-model rates [A] are the A100's times that ratio: A100 over H100 is
# within 8 % of vidur's layers, but up to 35 % too high at 256-512 tokens, where the H100 turns.
# Per-sequence and fixed times are scaled by .56, vidur's ratio for the small kernels. Shares and
# norms as on A100.
_H100_PREFILL = PrefillFit(
    flops_per_s=689e12,
    bytes_per_s=2.33e12,
    sm_exponent=0.84,
    bandwidth_share=0.08,
    norm=4.0,
    step_ms=2.1,
    sequence_ms=0.04,
)
_H100_DECODE = DecodeFit(
    flops_per_s=608e12,
    bytes_per_s=2.04e12,
    kv_bytes_per_s=2.41e12,
    sm_exponent=0.76,
    bandwidth_share=0.24,
    norm=3.5,
    sequence_ms=0.0146,
    # [A] DRAM bandwidth per unit of on-chip bandwidth is that of the A100, within 5 %.
    clock_c0=0.60,
    clock_c1=0.017,
    clock_q=5.65,
)

# Hopper power.
# Idle [F] 81.8 W at 1020, 98.3 W at 1545 MHz [M] afzal, 109 W at 1980 [F] roofline: residual < 1 W.
# Voltage [F] afzal, 7 uncapped points of one H200, leave-one-out 2.2 %. The slope contains leakage;
# below ~350 W AMBER [M] shows half of it, hence two slopes and a blend [A]. From one anchor at
# 900 MHz: FIRESTARTER within 4 % on average (345-1305 MHz), AMBER 20 % too high at 1545 MHz.
# Bytes: 121 pJ at 1980 MHz [F] roofline (0.9 % held out); its split [A].
# FLOPs [F] rough: bf16 GEMM at 94 % of peak: 390 W at 1000, 698 W at 1320, 702 W at 1395 MHz.
_HOPPER_POWER = PowerFit(
    idle_base_w=52.8,
    idle_slope_w=28.8,
    context_w=50.0,  # [P] arXiv 2605.23918
    cap_w=700.0,
    knee_ghz=0.987,
    slope_low=0.3,
    slope_high=0.606,
    slope_low_w=350.0,
    slope_high_w=450.0,
    flop_j=0.59e-12,
    memory_j=35e-12,
    chip_j=33e-12,
)
_HOPPER_SMS = (16, 32, 48, 64, 80, 96, 112, 132)
# 345-1980 in steps of 15 [M]. 990 is the knee, 1395 the clock of dense GEMM at 700 W, 795-1635 the
# paper's range (section 3.2). Below it only idle power falls, in proportion: close steps let a
# paced GPU sink as far as its deadlines allow.
_HOPPER_CLOCKS = (345, 450, 570, 690, 795, 990, 1155, 1275, 1395, 1515, 1635, 1800, 1980)

_H100 = GpuSpec(
    kind="H100-SXM5-80GB",
    aliases=("h100",),
    sms_total=132,
    sms_ladder=_HOPPER_SMS,
    clocks_mhz=_HOPPER_CLOCKS,
    memory_bytes=78 * _GIB,
    prefill=_H100_PREFILL,
    decode=_H100_DECODE,
    power=_HOPPER_POWER,
    load_bytes_per_s=51e9,  # [P] pinned memory in large pieces, vllm pull request 42212
    load_fixed_ms=_LOAD_FIXED_MS,
    wake_ms=_WAKE_MS,
    clock_switch_ms=_SWITCH_MS,
)

# H200: the H100's arithmetic with 1.4 times its bandwidth (copy 4.3 against 3.0 TB/s) [A]. Its
# latency is unchecked but for a decode alone on few SMs (7 %); streaming power is within 2 %.
_H200 = GpuSpec(
    kind="H200-SXM5-141GB",
    aliases=("h200",),
    sms_total=132,
    sms_ladder=_HOPPER_SMS,
    clocks_mhz=_HOPPER_CLOCKS,
    memory_bytes=138 * _GIB,
    prefill=PrefillFit(
        flops_per_s=689e12,
        bytes_per_s=3.26e12,
        sm_exponent=0.84,
        bandwidth_share=0.08,
        norm=4.0,
        step_ms=2.1,
        sequence_ms=0.04,
    ),
    decode=DecodeFit(
        flops_per_s=608e12,
        bytes_per_s=2.86e12,
        kv_bytes_per_s=3.37e12,
        sm_exponent=0.76,
        bandwidth_share=0.24,
        norm=3.5,
        sequence_ms=0.0146,
        clock_c0=0.70,  # [A] more DRAM bandwidth per unit of on-chip bandwidth than the H100
        clock_c1=0.017,
        clock_q=5.65,
    ),
    power=_HOPPER_POWER,
    load_bytes_per_s=51e9,
    load_fixed_ms=_LOAD_FIXED_MS,
    wake_ms=_WAKE_MS,
    clock_switch_ms=_SWITCH_MS,
)

GPUS = MappingProxyType({gpu.kind: gpu for gpu in (_H100, _H200, _A100)})
"""Every kind of GPU that physics knows, by kind."""


def gpu_named(name: str) -> GpuSpec:
    """The GPU of this kind or alias, in any case of letters.

    Raises:
        DeviceError: No such kind.
    """
    wanted = name.lower()
    for gpu in GPUS.values():
        if wanted == gpu.kind.lower() or wanted in gpu.aliases:
            return gpu
    known = ", ".join(sorted(alias for gpu in GPUS.values() for alias in gpu.aliases))
    raise DeviceError(f"no simulated GPU is called {name!r}", field="gpus", expected=known)
