"""What one policy did on one workload, as data.

Everything here is modelled: latencies and joules come from the analytic GPU.
"""

from __future__ import annotations

import math

import msgspec

from festina.errors import BadRequestError
from festina.simulator.histogram import Histogram, Percentiles


class EnergyBy(msgspec.Struct, frozen=True):
    """Joules of all GPUs by what they were spent on; the parts add up to the whole.

    Attributes:
        active: Running steps, the idle power beneath them included.
        idle: Awake without work.
        parked: Context destroyed, lowest clock.
        switching: Waiting for a clock switch, or waking.
        loading: Weights on their way to a GPU that runs no step.
        migrating: KV cache on its way to a GPU that runs no step.
    """

    active: float = 0.0
    idle: float = 0.0
    parked: float = 0.0
    switching: float = 0.0
    loading: float = 0.0
    migrating: float = 0.0

    def parts(self) -> dict[str, float]:
        """Kind → joules, in the order of the fields."""
        return {kind: getattr(self, kind) for kind in ENERGY_KINDS}

    @property
    def total(self) -> float:
        """Joules of all kinds."""
        return math.fsum(self.parts().values())


ENERGY_KINDS: tuple[str, ...] = EnergyBy.__struct_fields__


class Timeline(msgspec.Struct, frozen=True):
    """The cluster over simulated time, one sample an interval, each the mean over it.

    Attributes:
        interval_s: Length of an interval.
        power_w: Watts of all GPUs.
        clock_mhz: Mean over the GPUs that are awake; 0 while none is.
        gpus_awake: GPUs that are not parked.
        running: Requests that have a place in a batch.
        queued: Requests that wait for one.
    """

    interval_s: float
    power_w: tuple[float, ...] = ()
    clock_mhz: tuple[float, ...] = ()
    gpus_awake: tuple[float, ...] = ()
    running: tuple[float, ...] = ()
    queued: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuses columns of unequal length.

        Raises:
            BadRequestError: `field` names the column.
        """
        for name in ("clock_mhz", "gpus_awake", "running", "queued"):
            if len(getattr(self, name)) != len(self.power_w):
                raise BadRequestError(
                    "has another length", field=f"timeline.{name}", expected=f"{len(self.power_w)}"
                )


class ModelResult(msgspec.Struct, frozen=True):
    """One deployment's share.

    Attributes:
        name: Deployment.
        requests: Submitted.
        attainment: Share of them that met both objectives; None if there was none.
        energy_j: Joules attributed to them.
    """

    name: str
    requests: int
    attainment: float | None
    energy_j: float


class Span(msgspec.Struct, frozen=True):
    """One thing a GPU did, for the trace of a window.

    Attributes:
        gpu: Which GPU.
        model: Deployment; "" for what concerns the whole GPU.
        name: prefill, decode, mixed, load, wake, switch, migrate, park.
        start_ms: Simulated time.
        duration_ms: How long.
        clock_mhz: Clock meanwhile.
        batch: Sequences in the step.
        tokens: Tokens computed.
        sms: SMs it had; 0 for what needs none.
        power_w: The GPU's power meanwhile; 0 if unknown.
    """

    gpu: int
    model: str
    name: str
    start_ms: float
    duration_ms: float
    clock_mhz: float
    batch: int = 0
    tokens: int = 0
    sms: int = 0
    power_w: float = 0.0


class PolicyResult(msgspec.Struct, frozen=True, kw_only=True):
    """How one policy did on one workload.

    Attributes:
        policy: Its name.
        energy_j: Joules of all GPUs over the simulated time.
        energy_by: The same by kind.
        completed: Requests that got all their tokens.
        failed: Accepted requests that ended with an error, or not at all.
        rejected: Refused requests.
        slo_attainment: Share of all requests that met both objectives.
        ttft_attainment: Share that met the TTFT objective.
        tbt_attainment: Share that met the TBT objective.
        ttft_ms: Over requests with a first token.
        tbt_ms: Over all gaps between tokens.
        output_tokens: Tokens delivered.
        gpus_awake_mean: Mean over simulated time.
        migrations: Requests moved between GPUs while they decoded.
        clock_switches: Over all GPUs.
        cold_starts: Loads of weights, those included that no request waited for.
        simulated_s: Virtual time from the first arrival's clock zero to the last end.
        wall_s: Real time it took.
        digest: Hash of the outcome; the same seed gives the same in every process.
        interrupted: Stopped early; everything above covers the part that was simulated.
        timeline: The cluster over time.
        ttft_histogram: Of what `ttft_ms` summarises.
        tbt_histogram: Of what `tbt_ms` summarises.
        per_model: By deployment.
        cold_start_attainment: Attainment of the requests that met a cold start; None without any.
        window: Spans of the window that was asked for.
    """

    policy: str
    energy_j: float
    energy_by: EnergyBy
    completed: int
    failed: int
    rejected: int
    slo_attainment: float
    ttft_attainment: float
    tbt_attainment: float
    ttft_ms: Percentiles
    tbt_ms: Percentiles
    output_tokens: int
    gpus_awake_mean: float
    migrations: int
    clock_switches: int
    cold_starts: int
    simulated_s: float
    wall_s: float
    digest: str
    interrupted: bool = False
    timeline: Timeline = Timeline(interval_s=1.0)
    ttft_histogram: Histogram | None = None
    tbt_histogram: Histogram | None = None
    per_model: tuple[ModelResult, ...] = ()
    cold_start_attainment: float | None = None
    window: tuple[Span, ...] | None = None

    @property
    def joules_per_token(self) -> float | None:
        """Joules per delivered token; None without any."""
        return self.energy_j / self.output_tokens if self.output_tokens else None

    @property
    def clock_mean_mhz(self) -> float | None:
        """Mean clock of awake GPUs over time; None if none was awake or nothing was sampled."""
        awake = math.fsum(self.timeline.gpus_awake)
        if not awake:
            return None
        pairs = zip(self.timeline.clock_mhz, self.timeline.gpus_awake, strict=True)
        return math.fsum(clock * gpus for clock, gpus in pairs) / awake
