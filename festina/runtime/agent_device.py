"""Which device and engine an agent drives, by the name it was started with."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from festina.config import AgentConfig, Config
from festina.control.clock import ClockRules
from festina.control.clock_governor import ClockGovernor, DeviceClock
from festina.control.clock_sweep import ClockSweep
from festina.control.profile import ProfileTable, shipped_profiles
from festina.control.profiled import ProfiledStepTime
from festina.control.step_time import LearnedStepTime, StepTime, StepTimePrior
from festina.device import physics
from festina.device.base import Device
from festina.device.cpu import CpuDevice, machine_memory_bytes
from festina.device.nvidia.opening import hold_device, open_ladder
from festina.device.simulated import SimulatedDevice
from festina.engine.base import Engine, LoadedModel
from festina.engine.cpu.engine import CpuEngine
from festina.engine.hosted.engine import Bounds, HostedEngine
from festina.engine.hosted.frames import Open
from festina.engine.hosted.images import Images
from festina.engine.hosted.server import cuda_engine
from festina.engine.simulated import SimulatedEngine
from festina.engine.weights_name import profile_name
from festina.errors import ConfigError, ProfileError
from festina.runtime.protocol.local_rules import local_rules

DEFAULT_SIMULATED = "H100-SXM5-80GB"
_EXPECTED = "cpu, sim, sim:KIND or cuda:ORDINAL"


@dataclass(frozen=True, slots=True)
class Built:
    """A device and what drives it. The caller closes the device.

    Attributes:
        device: The device.
        engine: Runs models on it.
        step_time: Makes the predictor of a loaded model's steps.
        clocks: Chooses its clock; None where it has none, or no profile.
        park: Gives the device's context up; called where the engine runs, with nothing resident.
        wake: Takes it (again), and returns when the engine can load models; what was resident
            before is not.
        check: Raises `EngineLostError` where the engine is gone.
        end: Ends the engine, from any thread: a call under way fails soon.
        loads_beside: Its engine loads and unloads on a second thread while steps of other models
            run on the first.
    """

    device: Device
    engine: Engine
    step_time: Callable[[LoadedModel], StepTime]
    clocks: DeviceClock | None = None
    park: Callable[[], None] = lambda: None
    wake: Callable[[], None] = lambda: None
    check: Callable[[], None] = lambda: None
    end: Callable[[], None] = lambda: None
    loads_beside: bool = False

    def close(self) -> None:
        """End the engine; the device is closed by itself."""
        self.end()


def build(gpu: str, config: Config, now: float) -> Built:
    """Device and engine for `gpu`: `cpu`, `sim`, `sim:KIND` or `cuda:ORDINAL`.

    Raises:
        ConfigError: No such kind of device.
        DeviceError: No simulated GPU of that kind, no such GPU, or no driver.
        UnsupportedEngineError: The device is there, but what runs models on it is not installed.
        ProfileError: The device's profile is damaged, or of a device with other clocks or SMs.
    """
    device, engine = open_engine(gpu, config, now)
    if not config.agent.set_clocks:
        device.clocks_mhz = ()  # which the scheduler is told, too
    if gpu == "cpu":
        built = Built(device, engine, lambda loaded: LearnedStepTime(cpu_prior(loaded)))
    else:
        built = _profiled(device, engine, config)
    if isinstance(engine, HostedEngine):
        return _hosted(built, engine)
    if not isinstance(device, SimulatedDevice):
        return built
    wake_s = device.gpu.wake_ms / 1e3
    return replace(built, wake=lambda: time.sleep(wake_s), loads_beside=True)


def open_engine(gpu: str, config: Config, now: float) -> tuple[Device, Engine]:
    """A device and what runs models on it, without any profile. The caller closes the device.

    Raises:
        ConfigError: No such kind of device.
        DeviceError: No simulated GPU of that kind, no such GPU, or no driver.
        UnsupportedEngineError: The device is there, but what runs models on it is not installed.
    """
    kind, _, which = gpu.partition(":")
    if gpu == "cpu":
        return CpuDevice(config.cpu_power, now=now), _cpu_engine(config)
    if kind == "sim":
        _refuse_process(gpu, config)
        simulated = SimulatedDevice(physics.gpu_named(which or DEFAULT_SIMULATED), now=now)
        return simulated, SimulatedEngine(simulated)
    if kind == "cuda" and which.isdecimal():
        return _open_cuda(int(which), config, now)
    raise ConfigError(f"no device of kind {gpu!r}", field="gpu", expected=_EXPECTED)


def _refuse_process(gpu: str, config: Config) -> None:
    if config.agent.host_engine == "process":
        raise ConfigError(
            f"{gpu} has no engine that could be in a process of its own",
            field="agent.host_engine",
            expected="auto or inline",
        )


def _cpu_engine(config: Config) -> Engine:
    if config.agent.host_engine == "inline":
        return CpuEngine(Path(config.models_dir) if config.models_dir else None)
    return _host(Open("cpu", config.models_dir, log_format=config.log.format), config)


def _host(opening: Open, config: Config) -> HostedEngine:
    """An engine in a process of its own, which has begun to start."""
    hot_bytes_max = int(config.agent.hot_share * machine_memory_bytes())
    bounds = Bounds(config.agent.step_timeout_s, config.agent.load_timeout_s)
    return HostedEngine(opening, Images(hot_bytes_max), bounds)


def _hosted(built: Built, engine: HostedEngine) -> Built:
    """With what an engine in a process of its own can do besides."""
    return replace(built, park=engine.park, wake=engine.wake, check=engine.check, end=engine.close)


def _open_cuda(ordinal: int, config: Config, now: float) -> tuple[Device, Engine]:
    """The GPU first, so that whatever is wrong with it is told before what is not installed."""
    if config.agent.host_engine != "inline":
        return _host_cuda(ordinal, config, now)
    ladder = open_ladder(ordinal)
    with ExitStack() as undo:
        device = hold_device(ordinal, now, ladder.partitions)
        undo.callback(device.close)
        engine = cuda_engine(_opening(ordinal, config), ladder)
        undo.pop_all()
    return device, engine


def _host_cuda(ordinal: int, config: Config, now: float) -> tuple[Device, Engine]:
    """The context and its ladder are the process'; this one reads sensors and sets clocks."""
    with ExitStack() as undo:
        engine = _host(_opening(ordinal, config), config)
        undo.callback(engine.close)
        device = hold_device(ordinal, now, engine.partitions())
        undo.pop_all()
    return device, engine


def _opening(ordinal: int, config: Config) -> Open:
    return Open(
        "cuda",
        config.models_dir,
        ordinal=ordinal,
        graphs_max=config.agent.graphs_max,
        graphs_ahead=config.agent.graphs_ahead,
        batch_max=local_rules(config.agent, "cuda").batch_max,
        log_format=config.log.format,
    )


def _profiled(device: Device, engine: Engine, config: Config) -> Built:
    table = profile_of(device, config)
    weights = {item.name: profile_name(item.weights) for item in config.deployments}

    def step_time(loaded: LoadedModel) -> StepTime:
        model = weights[loaded.model]
        if table is not None and model in table.models:
            return ProfiledStepTime(table, model)
        return LearnedStepTime(gpu_prior(loaded))

    return Built(device, engine, step_time, governor(table, device, config.agent))


def profile_of(device: Device, config: Config) -> ProfileTable | None:
    """The profile of a device; None where there is none.

    Raises:
        ProfileError: It is damaged, or of a device with other clocks or SMs.
    """
    folder = (Path(config.profiles) if config.profiles else shipped_profiles()) / device.kind
    if not folder.is_dir():
        return None
    table = ProfileTable.load(folder)
    _check_covers(table, device)
    return table


def governor(table: ProfileTable | None, device: Device, agent: AgentConfig) -> DeviceClock | None:
    """What chooses the device's clock; None where it cannot be set, or nothing is known."""
    if table is None or not device.clocks_mhz:
        return None
    sms = device.partitions[0].sms
    if agent.policy == "paper":
        return ClockSweep(table, sms)
    return ClockGovernor(table, sms, rules=ClockRules(margin=agent.margin))


def _check_covers(table: ProfileTable, device: Device) -> None:
    """Whether every step that the device will run lies in the profile.

    What counts is the clock of work: an idle GPU shows one that no step ever runs at.
    """
    run_mhz = device.run_clock_mhz()
    strange = set(table.clocks_mhz) - set(device.clocks_mhz) if device.clocks_mhz else set()
    if run_mhz not in table.clocks_mhz or strange:
        raise ProfileError(
            f"clocks {table.clocks_mhz} of a device that runs at {run_mhz}",
            field="clock_mhz",
            expected=f"{run_mhz} and others of {device.clocks_mhz or 'any clock'}",
        )
    sms = device.partitions[0].sms
    if sms not in table.sms:
        raise ProfileError(f"rungs {table.sms}", field="sms", expected=f"{sms} among them")


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
