"""`festina profile --device cuda:N`: measure a model on a GPU, with its clocks given back after."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from festina.config import Config
from festina.device import physics
from festina.device.base import Device
from festina.device.nvidia.nvml import Nvml
from festina.device.nvidia.opening import bare_power_w, cuda_device_count
from festina.engine.base import Engine
from festina.engine.cuda.extras import require_torch
from festina.engine.gpu_plan import GpuRoom, expected_step_ms, gpu_plan
from festina.engine.measured_profile import (
    Keeping,
    Measured,
    Origin,
    Subject,
    TimeSource,
    measure,
)
from festina.engine.measurements import Measurement, MeasurementStore, RunIdentity
from festina.engine.profile_fill import ProfileFill, Wanted
from festina.engine.profile_plan import ProfilePlan
from festina.engine.weights_name import RANDOM_PREFIX, profile_name
from festina.engine.work_sizes import WorkSizes, sizes_of
from festina.profile_format import ProfileRow, write_profile_file
from festina.runtime.agent_device import open_engine
from festina.runtime.measuring import measuring

WORK_SHARE = 0.85
"""Of the memory beside the weights; the rest is for activations, graphs and copies of KV blocks."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What the command was asked for.

    Attributes:
        gpu: "cuda:ORDINAL".
        weights: A known shape's name, or weights as deployments name them.
        out: Folder of profiles.
        quick: Fewer points.
        restart: Throw away what an earlier run measured.
    """

    gpu: str
    weights: str
    out: Path
    quick: bool = False
    restart: bool = False

    @property
    def made_by(self) -> str:
        """The command, for the profile's head."""
        quick = " --quick" if self.quick else ""
        return f"festina profile --device {self.gpu} --model {self.weights}{quick}"


def write_gpu_profile(config: Config, ask: Ask) -> Path:
    """Measure a model on a GPU, or go on with it, and write its profile.

    Raises:
        DeviceError: No such GPU, or it failed.
        UnsupportedEngineError: Nothing here runs models on it.
        ProfileError: An earlier run measured something else in the same place.
    """
    ordinal = int(ask.gpu.partition(":")[2])
    cuda_device_count()  # without a driver nothing else matters
    require_torch()
    parked_w = bare_power_w(ordinal, time.monotonic, time.sleep)  # before there is any context
    device, engine = open_engine(ask.gpu, measuring(config), time.monotonic())
    try:
        with Nvml() as nvml:
            machine = f"{device.kind}, driver {nvml.driver_version()}"
        return profile_on(device, engine, ask, config, parked_w=parked_w, machine=machine)
    finally:
        device.close()


def profile_on(
    device: Device,
    engine: Engine,
    ask: Ask,
    config: Config,
    *,
    parked_w: float,
    machine: str,
    times: TimeSource | None = None,
    console: Console | None = None,
) -> Path:
    """The same on a device that is open; time and terminal are the tests'."""
    console = console or Console(stderr=True)
    weights = RANDOM_PREFIX + ask.weights if ask.weights in physics.MODELS else ask.weights
    sizes = sizes_of(weights, Path(config.models_dir) if config.models_dir else None)
    gpu = physics.GPUS.get(device.kind)
    plan, seconds = _plan(device, gpu, sizes, quick=ask.quick)
    model = profile_name(weights)
    path = ask.out / device.kind / f"{model}.csv"
    identity = RunIdentity(device.kind, model, weights, plan)
    store = MeasurementStore(path, identity, restart=ask.restart)
    console.print(f"expected: {seconds / 60:.0f} min; ctrl-C keeps what is measured")
    subject = Subject(
        model=model,
        weights=weights,
        plan=plan,
        origin=Origin(
            made_by=ask.made_by,
            date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            machine=machine,
        ),
        parked_w=parked_w,
        wake_ms=gpu.wake_ms if gpu else 0.0,
        context_tokens=sizes.context_tokens,
    )
    keeping = Keeping(store, lambda found, total, kept: progress(found, total, kept, console))
    measured = measure(engine, device, subject, keeping, times)
    write_profile_file(path, measured.info, _rows(device, gpu, sizes, plan, measured))
    store.finish()
    return path


def progress(
    found: Iterable[Measurement], total: int, kept: int, console: Console
) -> Iterable[Measurement]:
    """Passes measurements on and shows how far it is and what was measured last."""
    columns = (
        TextColumn("measuring"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total, completed=kept, last="")
        for one in found:
            yield one
            bar.update(task, advance=1, last=_told(one))


def _told(one: Measurement) -> str:
    if one.phase == "idle":
        return f"idle at {one.clock_mhz} MHz: {one.power_w:.0f} W"
    return (
        f"{one.phase} {one.tokens} × {one.context} on {one.sms} SMs: "
        f"{one.latency_ms:.1f} ms, {one.power_w:.0f} W"
    )


def _plan(
    device: Device, gpu: physics.GpuSpec | None, sizes: WorkSizes, *, quick: bool
) -> tuple[ProfilePlan, float]:
    """What to measure, and for how long. An unknown GPU is expected to be as fast as an H100."""
    room_bytes = WORK_SHARE * (device.memory_bytes - sizes.resident_bytes)
    room = GpuRoom(
        sms=tuple(sorted(one.sms for one in device.partitions if one.side == 0)),
        clock_mhz=device.run_clock_mhz(),
        clocks_mhz=device.clocks_mhz,
        kv_tokens=max(0, int(room_bytes / sizes.kv_bytes_per_token)),
        context_tokens=sizes.context_tokens,
    )
    step_ms = expected_step_ms(gpu or physics.gpu_named("h100"), sizes)
    return gpu_plan(room, step_ms, quick=quick, modelled=gpu is not None)


def _rows(
    device: Device,
    gpu: physics.GpuSpec | None,
    sizes: WorkSizes,
    plan: ProfilePlan,
    measured: Measured,
) -> Iterable[ProfileRow]:
    if gpu is None:  # nothing but what was measured
        return [one.row() for one in measured.measurements]
    wanted = Wanted(
        sms=tuple(sorted(one.sms for one in device.partitions if one.side == 0)),
        clocks_mhz=profile_clocks(gpu, device, measured),
    )
    shape = sizes.with_shape(measured.shape)
    return ProfileFill(gpu, shape, measured.measurements, wanted).rows(plan)


def profile_clocks(gpu: physics.GpuSpec, device: Device, measured: Measured) -> tuple[int, ...]:
    """The clocks of a profile: those that every profile of this kind has, and the measured ones."""
    found = {one.clock_mhz for one in measured.measurements}
    usual = (one for one in gpu.clocks_mhz if one <= max(found))
    usable = {one for one in usual if not device.clocks_mhz or one in device.clocks_mhz}
    return tuple(sorted(usable | found))
