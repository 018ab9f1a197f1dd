"""What a simulation found, as data: one result a policy, one report a workload, and their JSON.

Everything here is modelled: latencies and joules come from the analytic GPU. The JSON carries a
`schema` number; a file of another schema is refused, not guessed at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from festina.errors import BadRequestError

SCHEMA = 1
"""Raised whenever a field changes its meaning or goes away; new fields with defaults keep it."""


class Percentiles(msgspec.Struct, frozen=True):
    """Of a latency, in ms; None where nothing was observed."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


class Histogram(msgspec.Struct, frozen=True):
    """Counts over log-spaced bins. Bin i is [edges_ms[i], edges_ms[i+1]).

    Observations outside the edges are counted in the first and last bin.

    Attributes:
        edges_ms: n+1 ascending edges.
        counts: n counts.
    """

    edges_ms: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuses edges that are not one more than the counts, positive and ascending.

        Raises:
            BadRequestError: `field` is `edges_ms` or `counts`.
        """
        if len(self.edges_ms) != len(self.counts) + 1:
            raise BadRequestError(
                "has another length", field="edges_ms", expected=f"{len(self.counts) + 1} edges"
            )
        pairs = zip(self.edges_ms, self.edges_ms[1:], strict=False)
        if self.edges_ms[0] <= 0 or any(low >= high for low, high in pairs):
            raise BadRequestError("is not ascending from above 0", field="edges_ms")
        if any(count < 0 for count in self.counts):
            raise BadRequestError("is negative", field="counts", expected="0 or more")

    @property
    def total(self) -> int:
        """Observations."""
        return sum(self.counts)

    def percentile(self, q: float) -> float | None:
        """The value that q % of the observations do not exceed, interpolated within its bin.

        Args:
            q: 0 to 100.
        """
        total = self.total
        if not total:
            return None
        rank, below = q / 100 * total, 0
        for index, count in enumerate(self.counts):
            if count and below + count >= rank:
                low, high = self.edges_ms[index], self.edges_ms[index + 1]
                return low * math.pow(high / low, (rank - below) / count)
            below += count
        return self.edges_ms[-1]

    def percentiles(self) -> Percentiles:
        """p50, p90 and p99."""
        return Percentiles(self.percentile(50), self.percentile(90), self.percentile(99))


class EnergyBy(msgspec.Struct, frozen=True):
    """Joules of all GPUs by what they were spent on; the parts add up to the whole.

    Attributes:
        active: Running steps, the idle power beneath them included.
        idle: Awake without work.
        parked: Context destroyed, lowest clock.
        switching: Waiting for a clock switch.
        loading: Weights on their way to a GPU, and waking it.
        migrating: KV cache on its way to another GPU.
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
        slo_attainment: Share of all submitted requests that met both objectives.
        ttft_attainment: Share that met the TTFT objective.
        tbt_attainment: Share that met the TBT objective.
        ttft_ms: Over requests with a first token.
        tbt_ms: Over all gaps between tokens.
        output_tokens: Tokens delivered.
        gpus_awake_mean: Mean over simulated time.
        migrations: Requests moved between GPUs.
        clock_switches: Over all GPUs.
        cold_starts: Loads of weights that a request waited for.
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


class Ablation(msgspec.Struct, frozen=True):
    """One run of an ablation.

    Attributes:
        ladder: The policy. `festina`: all on, then one switch off in each run; `festina-paper`: one
            more rule in each run, the last of which is the whole policy.
        label: The switch that is off, or the rule that was added.
        result: How it did.
    """

    ladder: str
    label: str
    result: PolicyResult


class SensitivityPoint(msgspec.Struct, frozen=True):
    """All policies with one uncertain constant at one value.

    Attributes:
        knob: Which constant.
        value: Its value.
        unit: Of the value.
        default: Whether it is the value used everywhere else.
        energy_j: Policy → joules.
        slo_attainment: Policy → attainment.
    """

    knob: str
    value: float
    unit: str
    default: bool
    energy_j: Mapping[str, float]
    slo_attainment: Mapping[str, float]


class SimulationReport(msgspec.Struct, frozen=True, kw_only=True):
    """All policies on one workload: the JSON of `festina simulate`.

    Attributes:
        workload: Its name.
        gpus: How many.
        gpu: Which kind.
        slo: Set of objectives.
        seed: Of the workload and of the truth's bias and noise.
        requests: Submitted.
        load: Multiple of the workload's load.
        synthetic: Whether the workload is a stand-in made without traces.
        version: Of festina.
        interrupted: Some policy was stopped early or not run at all.
        modelled: Always; says so to whoever reads the numbers.
        oracle_energy_j: Lower bound on the joules; None if it was not asked for.
        results: By policy, in the order asked for.
        ablation: Runs of `--ablation`.
        sensitivity: Runs of `--sensitivity`.
        ttft_objectives_ms: The distinct TTFT objectives, if they are few.
        tbt_objectives_ms: The distinct TBT objectives, if they are few.
        schema: `SCHEMA`.
    """

    workload: str
    gpus: int
    gpu: str
    slo: str
    seed: int
    requests: int
    load: float
    synthetic: bool
    version: str
    results: tuple[PolicyResult, ...]
    oracle_energy_j: float | None = None
    interrupted: bool = False
    modelled: bool = True
    ablation: tuple[Ablation, ...] = ()
    sensitivity: tuple[SensitivityPoint, ...] = ()
    ttft_objectives_ms: tuple[float, ...] = ()
    tbt_objectives_ms: tuple[float, ...] = ()
    schema: int = SCHEMA

    def of(self, policy: str) -> PolicyResult | None:
        """The result of a policy; None if it did not run."""
        return next((result for result in self.results if result.policy == policy), None)


class _Suite(msgspec.Struct, frozen=True):
    reports: tuple[SimulationReport, ...]
    schema: int = SCHEMA


class _Head(msgspec.Struct, frozen=True):
    schema: int
    reports: msgspec.Raw = msgspec.Raw()


def to_json(reports: Sequence[SimulationReport]) -> bytes:
    """One report as its object; several as `{"schema": …, "reports": […]}`."""
    whole = reports[0] if len(reports) == 1 else _Suite(tuple(reports))
    return msgspec.json.encode(whole)


def from_json(text: bytes, source: str = "results") -> tuple[SimulationReport, ...]:
    """Reports that `to_json` wrote.

    Args:
        text: The JSON.
        source: Names it in errors.

    Raises:
        BadRequestError: Not such JSON, or of another schema.
    """
    try:
        head = msgspec.json.decode(text, type=_Head)
        if head.schema != SCHEMA:
            raise BadRequestError(
                f"has schema {head.schema}", field=f"{source}: schema", expected=str(SCHEMA)
            )
        if not bytes(head.reports):
            return (msgspec.json.decode(text, type=SimulationReport),)
        return msgspec.json.decode(text, type=_Suite).reports
    except msgspec.MsgspecError as error:
        raise BadRequestError(
            str(error), field=source, expected="results of festina simulate"
        ) from error
