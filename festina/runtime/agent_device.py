"""Which device and engine an agent drives, by the name it was started with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from festina.config import Config
from festina.control.step_time import LearnedStepTime, StepTime, StepTimePrior
from festina.device import physics
from festina.device.base import Device
from festina.device.cpu import CpuDevice
from festina.device.simulated import SimulatedDevice
from festina.engine.base import Engine, LoadedModel
from festina.engine.cpu.engine import CpuEngine
from festina.engine.simulated import SimulatedEngine
from festina.errors import ConfigError

Built = tuple[Device, Engine, Callable[[LoadedModel], StepTime]]
"""A device, the engine on it, and what predicts its steps. The caller closes the device."""

DEFAULT_SIMULATED = "H100-SXM5-80GB"


def build(gpu: str, config: Config, now: float) -> Built:
    """Device and engine for `gpu`: `cpu`, `sim` or `sim:KIND`.

    Raises:
        ConfigError: No such kind of device.
    """
    kind, _, which = gpu.partition(":")
    if gpu == "cpu":
        engine = CpuEngine(Path(config.models_dir) if config.models_dir else None)
        cpu = CpuDevice(config.cpu_power, now=now)
        return cpu, engine, lambda loaded: LearnedStepTime(cpu_prior(loaded))
    if kind == "sim":
        device = SimulatedDevice(physics.gpu_named(which or DEFAULT_SIMULATED), now=now)
        return device, SimulatedEngine(device), lambda loaded: LearnedStepTime(gpu_prior(loaded))
    raise ConfigError(f"no device of kind {gpu!r}", field="gpu", expected="cpu, sim or sim:KIND")


def cpu_prior(loaded: LoadedModel) -> StepTimePrior:
    """A cautious guess for one core, until steps have been measured."""
    shape = loaded.shape
    token_ms = 2.0 * shape.parameters / 1e8
    return StepTimePrior(
        fixed_ms=shape.weight_bytes / 5e6,
        prefill_token_ms=token_ms,
        decode_ms=token_ms,
        context_token_ms=shape.kv_bytes_per_token / 2e7,
    )


def gpu_prior(loaded: LoadedModel) -> StepTimePrior:
    """A cautious guess for a data-centre GPU, until steps have been measured."""
    shape = loaded.shape
    return StepTimePrior(
        fixed_ms=shape.weight_bytes / 1.5e9,
        prefill_token_ms=2.0 * shape.parameters / 2e11,
        decode_ms=0.1,
        context_token_ms=shape.kv_bytes_per_token / 1e9,
    )
