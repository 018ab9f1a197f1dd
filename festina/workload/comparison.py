"""A workload of the simulator on a cluster that serves, with and without consolidation."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import msgspec
import numpy as np
from msgspec.structs import replace

from festina.config import Config, DeploymentConfig
from festina.engine.simulated import PREFIX
from festina.messages import Cluster as ClusterMessage
from festina.messages import Consolidation
from festina.runtime.client import AsyncClient
from festina.runtime.supervisor import Cluster
from festina.simulator.workload import Workload
from festina.types import Sampling, Slo
from festina.workload.driver import Integrity, Observer, PlannedRequest, Run, drive, streams_of
from festina.workload.plan import PROMPT_IDS

SAMPLE_S = 0.5
"""Interval of looks at the cluster."""


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How a workload is made to fit the time there is.

    Attributes:
        speedup: Times are divided by it, the consolidator's and keep-alives among them.
        tokens: Lengths are multiplied by it: how far apart tokens are is not sped up.
        context_tokens: Longest prompt plus output; longer requests are cut.
        kv_tokens: KV pool of each deployment on each GPU that holds it.
        keep_alive_s: Of idle weights, in the workload's own time.
    """

    speedup: float = 4.0
    tokens: float = 0.1
    context_tokens: int = 4096
    kv_tokens: int = 16384
    keep_alive_s: float = 300.0


class Side(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        policy: The consolidator's.
        energy_j: Of all GPUs from the first request on, for `metered_s`.
        energy_source: How that figure came about.
        metered_s: The same for all sides.
        attainment: Share of the requests that met both objectives.
        completed: Requests that ended well.
        requests: Requests sent.
        awake_mean: GPUs that were awake, on the mean.
        integrity: Whether every request ended exactly once with its tokens in order.
        told: What the consolidator said of itself at the end; None where it was off.
    """

    policy: str
    energy_j: float
    energy_source: str
    metered_s: float
    attainment: float
    completed: int
    requests: int
    awake_mean: float
    integrity: Integrity
    told: Consolidation | None


@dataclass(slots=True)
class _Meter:
    """Looks at the cluster from time to time."""

    at_s: list[float] = field(default_factory=list)
    energy_j: list[float] = field(default_factory=list)
    awake: list[int] = field(default_factory=list)
    last: ClusterMessage | None = None

    def add(self, now_s: float, cluster: ClusterMessage) -> None:
        self.at_s.append(now_s)
        self.energy_j.append(sum(agent.summary.energy_j for agent in cluster.agents))
        self.awake.append(sum(not agent.summary.parked for agent in cluster.agents))
        self.last = cluster

    def energy_until(self, end_s: float) -> float:
        """Joules from the first look on."""
        return float(np.interp(end_s, self.at_s, self.energy_j)) - self.energy_j[0]


def cluster_config(workload: Workload, scale: Scale, base: Config, policy: str) -> Config:
    """Settings of a cluster that serves the workload's deployments, its times sped up.

    All but the horizon: waking a GPU costs as many joules as ever, and a run is one valley.
    """
    faster = scale.speedup
    own = base.consolidator
    timed = {
        name: getattr(own, name) / faster
        for name in ("every_s", "dwell_s", "window_s", "warmup_s", "patience_s")
    }
    look_s = min(own.look_s, timed["every_s"] / 2)
    consolidator = replace(own, policy=policy, look_s=look_s, **timed)
    deployments = tuple(
        DeploymentConfig(
            name=deployment.name,
            weights=PREFIX + deployment.shape,
            slo=_slo_of(workload, number),
            context_tokens=scale.context_tokens,
            kv_tokens=scale.kv_tokens,
            keep_alive_s=scale.keep_alive_s / faster,
        )
        for number, deployment in enumerate(workload.deployments)
    )
    local = replace(base.scheduler, endpoint="tcp://127.0.0.1:0")
    return replace(base, deployments=deployments, scheduler=local, consolidator=consolidator)


def _slo_of(workload: Workload, model: int) -> Slo:
    """The tightest objectives of the deployment's requests; each brings its own anyway."""
    mine = workload.model == model
    if not mine.any():
        return DeploymentConfig(name="x", weights="x").slo
    return Slo(float(workload.ttft_ms[mine].min()), float(workload.tbt_ms[mine].min()))


def planned_requests(workload: Workload, scale: Scale, seed: int) -> list[PlannedRequest]:
    """Requests with random prompts, at the workload's times, of its lengths and objectives."""
    rng = np.random.default_rng(seed)
    names = [deployment.name for deployment in workload.deployments]
    planned = []
    for row in range(len(workload)):
        outputs = _scaled(workload.output_tokens[row], scale, scale.context_tokens - 1)
        inputs = _scaled(workload.input_tokens[row], scale, scale.context_tokens - outputs)
        prompt = rng.integers(PROMPT_IDS.start, PROMPT_IDS.stop, inputs)
        planned.append(
            PlannedRequest(
                due_s=float(workload.arrival_ms[row]) / 1e3 / scale.speedup,
                model=names[workload.model[row]],
                slo=Slo(float(workload.ttft_ms[row]), float(workload.tbt_ms[row])),
                max_tokens=outputs,
                sampling=Sampling(ignore_eos=True),
                token_ids=tuple(prompt.tolist()),
            )
        )
    return planned


def _scaled(tokens: np.int32, scale: Scale, most: int) -> int:
    return min(max(1, round(float(tokens) * scale.tokens)), most)


def run_side(config: Config, requests: list[PlannedRequest], observe: Observer) -> Side:
    """Start a cluster, send the requests, meter it until 10 s after the last was due, stop it.

    Raises:
        StartError: A process did not start.
    """
    metered_s = requests[-1].due_s + 10.0
    with Cluster(config) as cluster:
        run, meter = asyncio.run(_serve(config, cluster.endpoint, requests, metered_s, observe))
    outcomes = run.outcomes()
    last = meter.last
    assert last is not None  # noqa: S101 - it looks before it sends
    return Side(
        policy=config.consolidator.policy,
        energy_j=meter.energy_until(metered_s),
        energy_source=" and ".join(sorted({str(a.summary.power_source) for a in last.agents})),
        metered_s=metered_s,
        attainment=sum(outcome.attained for outcome in outcomes) / len(outcomes),
        completed=sum(outcome.usage is not None for outcome in outcomes),
        requests=len(outcomes),
        awake_mean=float(np.mean(meter.awake)),
        integrity=run.integrity(),
        told=last.consolidation,
    )


async def _serve(
    config: Config,
    endpoint: str,
    requests: list[PlannedRequest],
    metered_s: float,
    observe: Observer,
) -> tuple[Run, _Meter]:
    async with AsyncClient(endpoint, link=config.link) as client:
        meter, start_s = _Meter(), time.monotonic()

        async def look_until(end_s: float) -> None:
            while not meter.at_s or meter.at_s[-1] < end_s:
                meter.add(time.monotonic() - start_s, await client.cluster())
                await asyncio.sleep(SAMPLE_S)

        looking = asyncio.create_task(look_until(metered_s))
        run = await drive(requests, streams_of(client, 100), time.monotonic, observe)
        await looking
        return run, meter
