"""The report of a simulation: all policies on one workload, and its JSON.

The JSON carries a `schema` number; a file of another schema is refused, not guessed at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from festina.errors import BadRequestError
from festina.simulator.result import PolicyResult

SCHEMA = 1
"""Raised whenever a field changes its meaning or goes away; new fields with defaults keep it."""


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
        oracle_attainment: Share of requests that attain in the schedules it is for: that of
            festina, or the lowest of all policies where festina did not run.
        results: By policy, in the order asked for.
        ablation: Runs of `--ablation`.
        sensitivity: Runs of `--sensitivity`.
        clipped: Requests that were shortened to their model's context.
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
    oracle_attainment: float | None = None
    interrupted: bool = False
    modelled: bool = True
    ablation: tuple[Ablation, ...] = ()
    sensitivity: tuple[SensitivityPoint, ...] = ()
    clipped: int = 0
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
