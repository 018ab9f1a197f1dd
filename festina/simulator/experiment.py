"""Which simulations an experiment needs, and the report that their results make. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

import festina
from festina.device import physics
from festina.simulator.oracle import OracleBound
from festina.simulator.policies import FESTINA
from festina.simulator.report import Ablation, SensitivityPoint, SimulationReport
from festina.simulator.result import PolicyResult, Timeline
from festina.simulator.sensitivity import SENSITIVITIES, setting_of
from festina.simulator.workload import Workload

Value = float | bool

ALL_ON = "all on"
BASE = "base"
OBJECTIVES_MAX = 4
"""Distinct objectives that a plot can still mark."""


@dataclass(frozen=True, slots=True)
class Run:
    """One simulation; equal runs give equal results.

    Attributes:
        policy: Its name.
        options: Its switches that differ from their defaults, by name.
        setting: Uncertain constant of the GPU and its value, or None for all at their defaults.
    """

    policy: str
    options: tuple[tuple[str, Value], ...] = ()
    setting: tuple[str, float] | None = None

    @property
    def label(self) -> str:
        """For a progress bar."""
        words = [f"{name}={_shown(value)}" for name, value in self.options]
        if self.setting is not None:
            words.append(f"{self.setting[0]}={self.setting[1]:g}")
        return " ".join((self.policy, *words))


@dataclass(frozen=True, slots=True)
class Experiment:
    """What to run on a workload.

    Attributes:
        policies: To compare.
        gpu: Kind of GPU.
        options: Policy → switches set by hand.
        ladders: Policy → its switches in order, for those that are ablated. Of `festina` each is
            switched off alone; of others they are switched on one after the other.
        sensitivity: Whether uncertain constants are varied.
    """

    policies: Sequence[str]
    gpu: physics.GpuSpec
    options: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    ladders: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sensitivity: bool = False

    def runs(self) -> tuple[Run, ...]:
        """Every run once: the policies first, then ablations, then sensitivities."""
        wanted = [self._run(policy) for policy in self.policies]
        wanted += [run for _, _, run in self._ablations()]
        wanted += [run for _, _, _, runs in self._points() for run in runs.values()]
        return tuple(dict.fromkeys(wanted))

    def results(self, found: Mapping[Run, PolicyResult]) -> tuple[PolicyResult, ...]:
        """Of the policies that ran, in the order asked for."""
        runs = (self._run(policy) for policy in self.policies)
        return tuple(found[run] for run in runs if run in found)

    def attainment(self, found: Mapping[Run, PolicyResult]) -> float | None:
        """Which share a lower bound is for; None unless all policies went to their end."""
        results = self.results(found)
        if len(results) < len(self.policies) or any(result.interrupted for result in results):
            return None
        own = [result.slo_attainment for result in results if result.policy == FESTINA]
        return own[0] if own else min(result.slo_attainment for result in results)

    def ablation(self, found: Mapping[Run, PolicyResult]) -> tuple[Ablation, ...]:
        """Of the ablated runs that went to their end."""
        return tuple(
            Ablation(ladder, label, _brief(found[run]))
            for ladder, label, run in self._ablations()
            if run in found and not found[run].interrupted
        )

    def points(self, found: Mapping[Run, PolicyResult]) -> tuple[SensitivityPoint, ...]:
        """Of the values at which every policy went to its end."""
        points = []
        for knob, value, default, runs in self._points():
            ran = {policy: found[run] for policy, run in runs.items() if run in found}
            if len(ran) < len(runs) or any(result.interrupted for result in ran.values()):
                continue
            points.append(
                SensitivityPoint(
                    knob=knob,
                    value=value,
                    unit="",
                    default=default,
                    energy_j={policy: result.energy_j for policy, result in ran.items()},
                    slo_attainment={policy: one.slo_attainment for policy, one in ran.items()},
                )
            )
        return tuple(points)

    def _run(
        self,
        policy: str,
        off: Sequence[str] = (),
        setting: tuple[str, float] | None = None,
    ) -> Run:
        options = {**self.options.get(policy, {}), **dict.fromkeys(off, False)}
        return Run(policy, tuple(sorted(options.items())), setting)

    def _ablations(self) -> Iterator[tuple[str, str, Run]]:
        """(ladder, label, run)."""
        for policy, switches in self.ladders.items():
            if policy == FESTINA:
                yield policy, ALL_ON, self._run(policy)
                for switch in switches:
                    yield policy, switch, self._run(policy, off=(switch,))
            else:
                for rung, label in enumerate((BASE, *switches)):
                    yield policy, label, self._run(policy, off=switches[rung:])

    def _points(self) -> Iterator[tuple[str, float, bool, dict[str, Run]]]:
        """(constant, value, whether it is the default, policy → run)."""
        if not self.sensitivity:
            return
        for knob, (low, _, high) in SENSITIVITIES.items():
            default = setting_of(self.gpu, knob)
            for value in sorted({low, default, high}):
                setting = None if value == default else (knob, value)
                runs = {policy: self._run(policy, setting=setting) for policy in self.policies}
                yield knob, value, value == default, runs


def report_of(
    experiment: Experiment,
    workload: Workload,
    found: Mapping[Run, PolicyResult],
    *,
    gpus: int,
    slo: str,
    seed: int,
    load: float,
    bound: OracleBound | None,
) -> SimulationReport:
    """The report of an experiment; what has not run is left out, and `interrupted` says so."""
    missing = any(run not in found or found[run].interrupted for run in experiment.runs())
    return SimulationReport(
        workload=workload.name,
        gpus=gpus,
        gpu=gpu_name(experiment.gpu),
        slo=slo,
        seed=seed,
        requests=len(workload),
        load=load,
        synthetic=workload.synthetic,
        clipped=workload.clipped,
        version=festina.__version__,
        results=experiment.results(found),
        oracle_energy_j=None if bound is None else bound.energy_j,
        oracle_attainment=None if bound is None else bound.attainment,
        interrupted=missing,
        ablation=experiment.ablation(found),
        sensitivity=experiment.points(found),
        ttft_objectives_ms=_few(workload.ttft_ms),
        tbt_objectives_ms=_few(workload.tbt_ms),
    )


def gpu_name(gpu: physics.GpuSpec) -> str:
    """As people type it: `h100-sxm`."""
    return f"{gpu.aliases[0]}-sxm"


def _shown(value: Value) -> str:
    return ("off", "on")[value] if isinstance(value, bool) else f"{value:g}"


def _few(values: NDArray[np.float32]) -> tuple[float, ...]:
    distinct = np.unique(values)
    return tuple(float(value) for value in distinct) if len(distinct) <= OBJECTIVES_MAX else ()


def _brief(result: PolicyResult) -> PolicyResult:
    """Without what takes much room and no ablation needs."""
    return msgspec.structs.replace(
        result,
        timeline=Timeline(result.timeline.interval_s),
        ttft_histogram=None,
        tbt_histogram=None,
        per_model=(),
        window=None,
    )
