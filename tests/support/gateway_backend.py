"""A client of no cluster, for the gateway: it answers by rote. Models choose what goes wrong."""

import asyncio
import dataclasses

import httpx
from msgspec.structs import replace

from festina.account import WAKE_S, Account, ModelEnergy, MoveCount, WakeTimes
from festina.config import Config, DeploymentConfig, GatewayConfig
from festina.errors import (
    AgentLostError,
    CancelledError,
    ContextLimitError,
    EngineError,
    OverloadedError,
    SchedulerLostError,
)
from festina.gateway.app import build_app
from festina.gateway.keys import ApiKeys
from festina.messages import (
    Accepted,
    AgentInfo,
    Cluster,
    Consolidation,
    DeploymentInfo,
    LikelyToken,
    TokenLogprobs,
    Tokens,
)
from festina.runtime.protocol.request import Ended
from festina.types import (
    FinishReason,
    GpuSummary,
    Health,
    ModelState,
    ModelSummary,
    Provenance,
    Slo,
    Usage,
)

WORDS = ("The ", "sea ", "is\n\n", "wide")
END = Ended(
    FinishReason.STOP, Usage(7, 4, 0.5, Provenance.MODELLED), "gpu0", ".", 20.0, (5.0, 6.0, 7.0)
)
LATE_S = 0.02
"""When the first choice of the model "late" fails, long after its first token."""
FAILURES = {
    "busy": OverloadedError("all queues are full", retry_after_ms=1500),
    "long": ContextLimitError("too long", field="max_tokens", expected="at most 9"),
    "lost": AgentLostError("gone"),
    "broken": EngineError("a step failed"),
}
MODELS = ("chat", "told", "mixed", "late", "endless", *FAILURES)
SUMMARY = GpuSummary(
    1, 1200, 1200, 132, 132, 0.0, 1000, 250, 2**30, 300.0, Provenance.MODELLED, 42.0, False,
    (ModelSummary("chat", ModelState.READY, 3, 2),), health=Health(61, ("power cap",)),
)  # fmt: skip
ACCOUNT = Account(
    idle_j=30.0,
    energy=(ModelEnergy("chat", 4.0, 8.0),),
    moves=(MoveCount("copy", "moved", 3), MoveCount("recompute", "kept", 1)),
    wakes=WakeTimes((0, 0, 0, 1, 2, *(0,) * (len(WAKE_S) - 4)), 2.5),
    clock_saved_j=21.0,
    lost_events=7,
)
CLUSTER = Cluster(
    1,
    tuple(DeploymentInfo(name, Slo(1000.0, 100.0), 2048) for name in MODELS),
    (AgentInfo("gpu0", 1, "H100", 10.0, SUMMARY, account=ACCOUNT),),
    5,
    2,
    Consolidation(1, "festina", "watching", saved_j=9.0),
)
CONFIG = Config(
    deployments=tuple(
        DeploymentConfig(name=name, weights="sim:llama-8b", slo=Slo(1000.0, 100.0))
        for name in MODELS
    ),
    gateway=GatewayConfig(body_bytes_max=2000),
)


def _likely(index, word, count):
    """The word, and at most one rival: two thirds of a character."""
    chosen = LikelyToken(index, word.encode(), -0.5 - index)
    rivals = (chosen, LikelyToken(9, "€".encode()[:2], -1.0 - index))
    return TokenLogprobs(chosen, rivals[:count])


class RoteBackend:
    """Tells each listener the same words. `jobs` and `cancelled` remember what was asked."""

    def __init__(self):
        self.jobs = []
        self.cancelled = []
        self.cluster_answer = CLUSTER
        self._listeners = {}

    def start(self, job, listener):
        self.jobs.append(job)
        self._listeners[job.submit.request_id] = listener
        loop = asyncio.get_running_loop()
        for event in self._script(job):
            loop.call_soon(self._tell, job.submit.request_id, event)
        if job.submit.request_id.endswith("-0") and job.submit.model == "late":
            loop.call_later(LATE_S, self._tell, job.submit.request_id, EngineError("it failed"))

    def cancel(self, request_id):
        if request_id in self._listeners:
            self.cancelled.append(request_id)
            self._tell(request_id, CancelledError("cancelled by its caller"))

    async def cluster(self):
        if isinstance(self.cluster_answer, SchedulerLostError):
            raise self.cluster_answer
        return self.cluster_answer

    def _tell(self, request_id, event):
        listener = self._listeners.get(request_id)
        if listener is None:
            return
        if isinstance(event, Ended | Exception):
            del self._listeners[request_id]
        listener(event)

    def _script(self, job):
        name, model = job.submit.request_id, job.submit.model
        told = job.generate.sampling.logprobs
        tokens = [
            Tokens(
                name, index, (index,), word, () if told is None else (_likely(index, word, told),)
            )
            for index, word in enumerate(WORDS)
        ]
        if model in FAILURES:
            return [FAILURES[model]]
        if model in ("endless", "late"):
            return [Accepted(name, 7), tokens[0]]
        end = END
        if model == "mixed" and name.endswith("-1"):
            end = dataclasses.replace(
                END, usage=replace(END.usage, energy_source=Provenance.MEASURED)
            )
        return [Accepted(name, 7), *tokens, end]


def ask(backend, path, body=None, *, keys=(), headers=None, config=CONFIG, before=()):
    """The answer of a gateway in this process: GET without a body, POST with one.

    `before` is what is posted to it first: pairs of path and body.
    """

    async def _ask():
        app = build_app(config, backend, ApiKeys(keys))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            for path_before, body_before in before:
                await client.post(path_before, json=body_before, headers=headers)
            if body is None:
                return await client.get(path, headers=headers)
            if isinstance(body, bytes):
                return await client.post(path, content=body, headers=headers)
            return await client.post(path, json=body, headers=headers)

    return asyncio.run(_ask())
